"""The callers of `benchmarks.serve`: what they count as audio, as a stall and as an error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.load import Kind, Outcome, Server, Setting, Share
from benchmarks.playback import play
from benchmarks.serve_report import Report, brief, figures

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKENS = 5
AUDIO = bytes(TOKENS * 960 * 2)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def stand_in(answer: bytes) -> AsyncIterator[Server]:
    """Not a speech server: it gives everybody the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(int(length.split()[1]))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield Server("127.0.0.1", listening.sockets[0].getsockname()[1], "default")


async def test_pieces_are_the_body_s_chunks() -> None:
    async with stand_in(CHUNKED + chunk(AUDIO[:1920]) + chunk(AUDIO[1920:]) + chunk(b"")) as server:
        outcome = await load.ask(server, "Hello.", TOKENS, streaming=True)
    assert outcome.error is None
    assert [seconds for _, seconds in outcome.pieces] == pytest.approx([0.04, 0.16])
    assert outcome.begun <= outcome.pieces[0][0] <= outcome.pieces[1][0]


async def test_a_body_of_known_length_is_one_piece() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(AUDIO)}\r\n\r\n".encode()
    async with stand_in(head + AUDIO) as server:
        outcome = await load.ask(server, "Hello.", TOKENS, streaming=False)
    assert outcome.error is None
    assert [seconds for _, seconds in outcome.pieces] == pytest.approx([0.2])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy", "status 503: busy"),
        (CHUNKED + chunk(AUDIO[:1920]) + chunk(b""), "0.04 s of audio came, not 0.20 s"),
        (CHUNKED + chunk(AUDIO) + b"100\r\nabc", "bytes"),
        (b"", "bytes"),
    ],
)
async def test_what_is_no_complete_audio_is_an_error(answer: bytes, error: str) -> None:
    async with stand_in(answer) as server:
        outcome = await load.ask(server, "Hello.", TOKENS, streaming=True)
    assert outcome.error is not None
    assert error in outcome.error


@pytest.mark.parametrize("kind", ["closed", "open", "real-time"])
async def test_callers_ask_until_the_time_is_up(kind: Kind) -> None:
    size = 20.0 if kind == "open" else 2.0
    setting = Setting(kind, size, streaming=True, tokens=TOKENS, warm_up=0.1, seconds=0.6)
    async with stand_in(CHUNKED + chunk(AUDIO) + chunk(b"")) as server:
        start = asyncio.get_running_loop().time()
        shares = [await asyncio.to_thread(load.call, server, setting, start, share=0, shares=1)]
    found = figures(setting, start, shares)
    assert found.flawless
    assert found.requests > 1
    if kind == "real-time":
        assert found.requests <= 2 * 4, "each utterance is heard out, for 0.2 s"


def test_a_player_stalls_when_a_piece_comes_after_the_last_was_played() -> None:
    assert play([(5.0, 1.0), (5.2, 1.0), (6.9, 1.0)]) == (0.0, 8.0)
    assert play([(5.0, 1.0), (6.5, 1.0), (8.0, 1.0)]) == (1.0, 9.0)
    assert play([]) == (0.0, float("-inf"))


def test_figures_are_of_the_time_after_the_warm_up() -> None:
    setting = Setting("closed", 2, streaming=True, tokens=25, warm_up=10.0, seconds=20.0)
    outcomes = [
        Outcome(105.0, [(109.0, 0.5), (111.0, 0.5)]),
        Outcome(112.0, [(112.1, 0.5), (112.2, 0.5)]),
        Outcome(113.0, [(113.3, 0.5), (114.0, 0.5)]),
        Outcome(114.0, [(114.1, 0.5)], "broken off"),
        Outcome(129.0, [(129.2, 0.5), (131.0, 0.5)]),
    ]
    found = figures(setting, 100.0, [Share(outcomes[:2], [0.0]), Share(outcomes[2:], [0.001])])
    assert (found.requests, found.errors, found.flawless) == (4, {"broken off": 1}, False)
    assert found.first_audio[0] == pytest.approx(0.2)
    assert found.all_audio[0] == pytest.approx(1.0)
    assert found.audio_rate == pytest.approx((0.5 + 1.0 + 1.0 + 0.5 + 0.5) / 20)
    assert found.stalled_share == pytest.approx(2 / 3)
    assert found.stalled_seconds == pytest.approx((0.2 + 1.3) / 2)
    assert "66.7 % stalled" in brief(found)
    assert "1 errors" in brief(found)


def test_a_report_tells_the_mean_and_the_range_of_its_runs(tmp_path: Path) -> None:
    setting = Setting("real-time", 2, streaming=True, tokens=25, warm_up=0.0, seconds=10.0)
    runs = [[figures(setting, 0.0, [Share([Outcome(1.0, [(1.0 + first, 1.0)])], [0.001])])] for first in (0.100, 0.140)]
    Report(["On a test's machine"], runs).write(tmp_path / "report.json")
    text = Report.read(tmp_path / "report.json").text()
    assert "120 (100–140)" in text
    assert "On a test's machine" in text
    assert "without a stall or an error: 2" in text


def test_a_setting_without_an_answer_is_reported_all_the_same(tmp_path: Path) -> None:
    setting = Setting("closed", 1, streaming=True, tokens=25, warm_up=0.0, seconds=10.0)
    report = Report([], [[figures(setting, 0.0, [Share([Outcome(1.0, [], "status 503: busy")], [])])]])
    report.write(tmp_path / "report.json")
    assert "error: closed 1: 1 × status 503: busy" in Report.read(tmp_path / "report.json").text()
