"""Speech for text that is still being written, by real WebSocket clients against a real server."""

import asyncio
import contextlib
import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.http.session import SECONDS_FOR_CONFIG
from server.http.websocket import SECONDS_TO_TAKE
from tests.server_process import SLOW, ServerProcess, eventually, exactly, running_server, wait_until
from tests.test_arriving_text import cut
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN
from vllm_cosyvoice.voice.store import BUILT_IN

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
PATIENCE = 4  # seconds, the server's --websocket_timeout
MOST = 30  # the server's --max_websockets
PRESET = "English male"  # without a recording, so that the first 5 text tokens are spoken at once
CLOSE_REFUSED, CLOSE_UNREADABLE, CLOSE_FAILED, CLOSE_RESTARTING = 1008, 1003, 1011, 1012
TEXT = "Good morning , my old friend ! What a day to walk over the hills and far away , 今天天气很好 ."
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    flags = ["--max_total_token_num", "16384", "--max_req_total_len", "8192", "--voices_dir", str(directory)]
    flags += ["--websocket_timeout", str(PATIENCE), "--max_websockets", str(MOST)]
    with running_server(tiny_model, directory / "log", *flags) as running:
        wait_until(lambda: running.process.poll() is not None or running.healthy(), "the server is ready")
        assert running.process.poll() is None
        yield running


@dataclass
class Utterance:
    """What came for one utterance."""

    pcm: bytes = b""
    frames: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


class Client:
    """A caller of /v1/audio/speech/stream."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"type": kind} | fields))

    async def text(self, *pieces: str, most_seconds: float = 0.0, draw: random.Random | None = None) -> None:
        for piece in pieces:
            await self.say("input.text", text=piece)
            if draw:
                await asyncio.sleep(draw.random() * most_seconds)

    async def next(self) -> dict[str, Any] | bytes:
        async with asyncio.timeout(SLOW):
            message = await self.socket.recv()
        return message if isinstance(message, bytes) else json.loads(message)

    async def event(self) -> dict[str, Any]:
        """The next message that is not audio."""
        while isinstance(message := await self.next(), bytes):
            continue
        return message

    async def first_audio(self) -> bytes:
        while not isinstance(message := await self.next(), bytes):
            assert message["type"] == "audio.start", message
        return message

    async def utterance(self) -> Utterance:
        """All that comes up to the next session.done."""
        heard = Utterance()
        while "session.done" not in heard.kinds()[-1:]:
            message = await self.next()
            if isinstance(message, bytes):
                heard.pcm += message
                heard.frames += 1
            else:
                heard.events.append(message)
        return heard

    async def closed(self) -> int | None:
        """The code that the server closes with."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code


@contextlib.asynccontextmanager
async def calling(server: ServerProcess, **config: object) -> AsyncIterator[Client]:
    async with unconfigured(server) as client:
        await client.say("session.config", **({"response_format": "pcm", "voice": PRESET, "temperature": 0} | config))
        yield client


@contextlib.asynccontextmanager
async def unconfigured(server: ServerProcess, path: str = "/v1/audio/speech/stream") -> AsyncIterator[Client]:
    async with connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None, open_timeout=SLOW) as socket:
        yield Client(socket)


def spaced(words: Sequence[str]) -> list[str]:
    """As a chat model writes them."""
    return [words[0], *(f" {word}" for word in words[1:])]


async def test_audio_starts_before_the_text_ends(server: ServerProcess) -> None:
    async with calling(server) as client:
        await client.text(*spaced(WORDS[:15]))
        early = await client.first_audio()
        await client.text(*spaced(["and", *WORDS[15:]]))
        await client.say("input.done")
        rest = await client.utterance()
    assert early and rest.pcm
    assert rest.kinds() == ["audio.done", "session.done"]
    assert rest.events[0]["total_bytes"] == len(early) + len(rest.pcm)
    assert not any(event["error"] or event["cancelled"] for event in rest.events[:1])


async def test_the_speech_is_that_of_the_whole_text_however_it_comes(server: ServerProcess) -> None:
    draw = random.Random(0)

    async def speak(pieces: Sequence[str], most_seconds: float, voice: str) -> np.ndarray:
        async with calling(server, max_tokens=150, voice=voice) as client:
            await client.text(*pieces, most_seconds=most_seconds, draw=draw)
            await client.say("input.done")
            return np.frombuffer((await client.utterance()).pcm, np.int16).astype(np.float64)

    for voice in (PRESET, "default"):
        whole = await speak([TEXT], 0, voice)
        ways = [(list(TEXT), 0.0), (spaced(WORDS), 0.2), *((cut(TEXT, draw), 0.1) for _ in range(3))]
        for heard in await asyncio.gather(*(speak(pieces, seconds, voice) for pieces, seconds in ways)):
            assert len(heard) == len(whole) == 150 * SAMPLES_PER_TOKEN
            # The same tokens; batches of other sizes round differently.
            assert np.abs(heard - whole).max() < 0.02 * np.abs(whole).max()


async def test_sentence_mode_speaks_each_sentence_as_soon_as_it_is_there(server: ServerProcess) -> None:
    async with calling(server, split_granularity="sentence", instructions="Speak slowly.", **exactly(20)) as client:
        await client.text("Good mor", "ning, my friend. How")
        assert len(await client.first_audio()) == 20 * BYTES_PER_TOKEN
        await client.text(" are you on the 3rd", " of May? ", "Fine")
        await client.say("input.done")
        heard = await client.utterance()
    starts = [event for event in heard.events if event["type"] == "audio.start"]
    assert [start["sentence_text"] for start in starts] == ["How are you on the 3rd of May?", "Fine"]
    assert heard.kinds() == ["audio.done", *["audio.start", "audio.done"] * 2, "session.done"]
    assert len(heard.pcm) == 2 * 20 * BYTES_PER_TOKEN
    assert heard.events[-1] == {"type": "session.done", "utterance_index": 0, "total_sentences": 3, "cancelled": False}


async def test_a_sentence_can_come_in_one_message_and_in_any_format(server: ServerProcess) -> None:
    async with calling(server, response_format="wav", stream_audio=False, **exactly(60)) as client:
        await client.text("Good morning.")
        await client.say("input.done")
        heard = await client.utterance()
        assert heard.frames == 1
        assert heard.pcm[:4] == b"RIFF"
        assert int.from_bytes(heard.pcm[40:44], "little") == 60 * BYTES_PER_TOKEN == len(heard.pcm) - 44
        await client.say("session.config", response_format="mp3", voice=PRESET, **exactly(60))
        await client.text("Good morning.")
        await client.say("input.done")
        heard = await client.utterance()
        assert heard.events[0]["format"] == "mp3"
        assert heard.pcm[0] == 0xFF


async def test_utterances_follow_each_other_on_one_connection(server: ServerProcess) -> None:
    async with calling(server, **exactly(30)) as client:
        for text in ("One day .", "", "?!", "Two days ."):
            await client.text(text)
            await client.say("input.done")
        heard = [await client.utterance() for _ in range(4)]
        await client.text("The end")
        await client.say("session.close")
        last = await client.utterance()
        assert await client.closed() == 1000
    assert [utterance.events[-1]["utterance_index"] for utterance in [*heard, last]] == [0, 1, 2, 3, 4]
    assert [len(utterance.pcm) // BYTES_PER_TOKEN for utterance in [*heard, last]] == [30, 0, 0, 30, 30]
    await eventually(server.idle, "nothing is left")


async def test_cancel_stops_the_sound_and_frees_every_stage(server: ServerProcess) -> None:
    async with calling(server, **exactly(4000)) as client:
        await client.text(TEXT)
        await client.say("input.done")
        await client.text("Waiting .")
        await client.first_audio()
        await client.say("input.cancel")
        events = [await client.event() for _ in range(3)]
        assert [(event["type"], event["utterance_index"], event["cancelled"]) for event in events] == [
            ("audio.done", 0, True),
            ("session.done", 0, True),
            ("session.done", 1, True),
        ]
        await eventually(server.idle, "nothing of it is left")
        await client.say("session.config", voice=PRESET, response_format="pcm", **exactly(10))
        await client.text("And on .")
        await client.say("input.done")
        heard = await client.utterance()  # with all that came since the cancel: nothing of the cancelled sound
    assert len(heard.pcm) == 10 * BYTES_PER_TOKEN
    assert heard.events[-1]["utterance_index"] == 2


async def test_cancel_before_any_sound_and_without_an_utterance(server: ServerProcess) -> None:
    async with calling(server) as client:
        await client.say("input.cancel")
        await client.text("Good")
        await client.say("input.cancel")
        assert (await client.event())["cancelled"]
        await client.text("?")
        await client.say("input.cancel")
        assert (await client.utterance()).events == [
            {"type": "session.done", "utterance_index": 1, "total_sentences": 0, "cancelled": True}
        ]
    await eventually(server.idle, "nothing is left")


@pytest.mark.parametrize(
    ("first", "complaint"),
    [
        ({"type": "input.text", "text": "Hello"}, "session.config"),
        ({"type": "session.config", "voice": "nobody"}, "nobody"),
        ({"type": "session.config", "model": "gpt-9"}, "gpt-9"),
        ({"type": "session.config", "response_format": "midi"}, "response_format"),
        ({"type": "session.config", "speed": 9}, "speed"),
        ({"type": "session.config", "temperature": 9}, "temperature"),
        ({"type": "session.config", "split_granularity": "word"}, "split_granularity"),
        ({"type": "session.config", "instructions": "Whisper."}, "split_granularity"),
        ({"type": "session.config", "ref_audio": "data:audio/wav;base64,AAAA"}, "recording"),
        (["session.config"], "JSON object"),
        ("session.config", "JSON object"),
    ],
)
async def test_a_session_that_cannot_begin_says_why(server: ServerProcess, first: object, complaint: str) -> None:
    async with unconfigured(server) as client:
        await client.socket.send(json.dumps(first))
        problem = await client.event()
        assert problem["type"] == "error"
        assert complaint in problem["message"]
        assert await client.closed() == CLOSE_REFUSED


async def test_a_bad_message_is_answered_and_the_session_goes_on(server: ServerProcess) -> None:
    async with calling(server, **exactly(10)) as client:
        for message in (
            "{",
            "[]",
            "{}",
            b"\x00",
            '{"type": "input.text"}',
            '{"type": "input.text", "text": "\\ud83d"}',
            json.dumps({"type": "input.text", "text": "x" * 200_000}),
            '{"type": "input.audio"}',
            '{"type": "session.config", "voice": "nobody"}',
        ):
            await client.socket.send(message)
            assert (await client.event())["type"] == "error", message
        await client.text("Good morning")
        await client.say("session.config", voice="default")
        assert "input.done" in (await client.event())["message"]
        await client.say("input.done")
        assert len((await client.utterance()).pcm) == 10 * BYTES_PER_TOKEN


async def test_an_endless_utterance_ends_with_an_error_and_the_next_is_spoken(server: ServerProcess) -> None:
    async with calling(server, **exactly(10)) as client:
        for _ in range(50):
            await client.text("far away " * 20)
        await client.say("input.done")
        heard = await client.utterance()
        [problem] = [event for event in heard.events if event["type"] == "error"]
        assert "4096 characters" in problem["message"]
        await client.text("Good morning")
        await client.say("input.done")
        assert len((await client.utterance()).pcm) == 10 * BYTES_PER_TOKEN
    await eventually(server.idle, "nothing is left")


async def test_too_many_utterances_at_once_are_refused(server: ServerProcess) -> None:
    async with calling(server, **exactly(10)) as client:
        for _ in range(30):
            await client.text("Good morning")
            await client.say("input.done")
        answers = [await client.utterance() for _ in range(8)]
        assert all(answer.pcm for answer in answers)
        assert any("wait for a session.done" in str(answer.events) for answer in answers)


async def test_no_more_connections_than_allowed(server: ServerProcess) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(unconfigured(server))
        with pytest.raises(InvalidStatus) as refused:
            async with unconfigured(server):
                pass
        answer = refused.value.response
        assert answer.status_code == 429
        assert answer.headers["retry-after"]
        assert json.loads(answer.body)["error"]["code"] == "overloaded"


async def test_who_says_nothing_or_does_not_listen_is_left(server: ServerProcess) -> None:
    loop = asyncio.get_running_loop()

    async def never_configured() -> float:
        begin = loop.time()
        async with unconfigured(server) as client:
            assert await client.closed() == CLOSE_REFUSED
        return loop.time() - begin

    async def silent_in_the_middle() -> float:
        begin = loop.time()
        async with calling(server) as client:
            await client.text("Good")
            assert await client.closed() == CLOSE_REFUSED
        return loop.time() - begin

    async def waiting_for_long_speech() -> None:
        async with calling(server, **exactly(800)) as client:
            await client.text("Good")
            await client.say("input.done")
            assert len((await client.utterance()).pcm) == 800 * BYTES_PER_TOKEN

    async def deaf() -> None:
        with socket.socket() as tcp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            tcp.connect(("127.0.0.1", server.port))
            url = f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream"
            async with connect(url, sock=tcp, ping_interval=None) as ws:
                ws.transport.pause_reading()
                config = {"type": "session.config", "voice": PRESET, "response_format": "pcm"} | exactly(6000)
                for message in (config, {"type": "input.text", "text": "Good"}, {"type": "input.done"}):
                    await ws.send(json.dumps(message))
                await eventually(lambda: not server.idle(), "it is being spoken")
                await eventually(server.idle, "it is given up")
                ws.transport.abort()

    seconds = await asyncio.gather(never_configured(), silent_in_the_middle(), waiting_for_long_speech())
    assert seconds[0] >= SECONDS_FOR_CONFIG
    assert seconds[1] >= PATIENCE
    begin = loop.time()
    await deaf()
    assert loop.time() - begin >= SECONDS_TO_TAKE


async def test_many_sessions_that_end_in_every_way_leave_nothing_behind(server: ServerProcess) -> None:
    def open_files() -> int:
        return sum(process.num_fds() for process in server.family())

    def memory() -> int:
        return sum(process.memory_info().rss for process in server.family())

    async def session(number: int) -> None:
        draw = random.Random(number)
        voice, granularity = draw.choice([PRESET, "default"]), draw.choice(["none", "none", "sentence", "clause"])
        tokens = draw.choice([10, 60, 4000])
        async with calling(server, voice=voice, split_granularity=granularity, **exactly(tokens)) as client:
            for _ in range(draw.randint(1, 3)):
                await client.text(*cut(TEXT, draw), most_seconds=0.02, draw=draw)
                ending = draw.choice(["done", "cancel", "cancel after done", "leave", "abort"])
                if ending == "leave":
                    return
                if ending == "abort":
                    client.socket.transport.abort()
                    return
                if ending != "cancel":
                    await client.say("input.done")
                if ending != "done" or tokens > 100:
                    await asyncio.sleep(draw.random() * 0.3)
                    await client.say("input.cancel")
                assert (await client.utterance()).kinds()[-1] == "session.done"

    async def round_of_sessions(first: int, last: int) -> None:
        places = asyncio.Semaphore(MOST // 2)  # the server may take a moment to see that a client has left

        async def one(number: int) -> None:
            async with places:
                await session(number)

        await asyncio.gather(*map(one, range(first, last)))
        await eventually(server.idle, "nothing of the sessions is left")

    await round_of_sessions(0, 20)
    files, bytes_before = open_files(), memory()
    await round_of_sessions(20, 100)
    assert open_files() <= files + 5
    assert memory() <= bytes_before + (100 << 20)


@contextlib.asynccontextmanager
async def bistream(server: ServerProcess, prompt: bytes | None = None, **first: object) -> AsyncIterator[Client]:
    recording, transcript = BUILT_IN / "default.wav", BUILT_IN / "default.txt"
    async with unconfigured(server, "/inference_zero_shot_bistream") as client:
        await client.socket.send(json.dumps({"prompt_text": transcript.read_text()} | first))
        await client.socket.send(recording.read_bytes() if prompt is None else prompt)
        yield client


async def test_lighttts_clients_speak_as_before(server: ServerProcess) -> None:
    async with bistream(server, tts_model_name="default") as client:
        for word in spaced(WORDS * 4):
            await client.socket.send(json.dumps({"tts_text": word}))
        early = await client.next()
        assert isinstance(early, bytes), "audio comes while text is still due"
        await client.socket.send(json.dumps({"tts_text": " The end."}))
        await client.socket.send(json.dumps({"finish": True, "tts_text": "not spoken"}))
        pcm = early
        with contextlib.suppress(ConnectionClosed):
            while isinstance(piece := await client.next(), bytes):
                pcm += piece
        assert client.socket.close_code == 1000
    assert len(pcm) % BYTES_PER_TOKEN == 0
    await eventually(server.idle, "nothing is left")


@pytest.mark.parametrize(
    ("frames", "first", "prompt", "code"),
    [
        ([{"finish": True}], {}, None, CLOSE_FAILED),
        ([{"tts_text": 5}], {}, None, CLOSE_FAILED),
        ([{"tts_text": "?"}, {"text": "?"}], {}, None, CLOSE_FAILED),
        ([], {"prompt_text": None}, None, CLOSE_UNREADABLE),
        ([], {"tts_model_name": "other"}, None, CLOSE_UNREADABLE),
        ([], {}, b"no recording", CLOSE_UNREADABLE),
    ],
)
async def test_lighttts_clients_are_told_what_is_wrong(
    server: ServerProcess, frames: list[object], first: dict[str, object], prompt: bytes | None, code: int
) -> None:
    async with bistream(server, prompt, **first) as client:
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                await client.socket.send(json.dumps(frame))
        if code == CLOSE_FAILED:
            answer = await client.event()
            assert answer["error"].startswith("Server error: ")
        assert await client.closed() == code
    await eventually(server.idle, "nothing is left")


async def test_a_lighttts_client_may_leave_at_any_time(server: ServerProcess) -> None:
    for words in (0, 2, 60):
        async with bistream(server) as client:
            for word in spaced([*WORDS * 4][: words or 1]):
                await client.socket.send(json.dumps({"tts_text": word}))
            if words:
                await asyncio.sleep(0.5)
            client.socket.transport.abort()
    await eventually(server.idle, "nothing is left")


async def test_the_death_of_a_stage_ends_the_utterance_and_not_the_session(server: ServerProcess) -> None:
    async with calling(server, **exactly(4000)) as client:
        await client.text(*spaced(WORDS))
        await client.first_audio()
        server.named("generate-0").send_signal(signal.SIGKILL)
        problem = await client.event()
        assert problem["type"] == "error"
        assert problem["code"] == "unavailable"
        assert problem["partial_audio"]
        await client.say("input.done")
        assert (await client.utterance()).kinds() == ["audio.done", "session.done"]
    await eventually(server.healthy, "the stage is back")
    await eventually(server.idle, "nothing is left")


async def test_the_death_of_an_http_worker_frees_the_stages(server: ServerProcess) -> None:
    async with calling(server) as client:
        await client.text(*spaced(WORDS[:15]))
        await client.first_audio()
        server.named("http-0").send_signal(signal.SIGKILL)
        await client.closed()
    await eventually(server.healthy, "the worker is back")
    await eventually(server.idle, "nothing is left")


async def test_what_is_being_spoken_is_finished_before_the_server_stops(server: ServerProcess) -> None:
    async with calling(server) as idle, calling(server, **exactly(60)) as client:
        await client.text(*spaced(WORDS[:15]))
        await client.first_audio()
        processes = server.family()
        server.process.terminate()
        assert await idle.closed() == CLOSE_RESTARTING
        await client.text(" The end .")
        await client.say("input.done")
        assert (await client.utterance()).kinds() == ["audio.done", "session.done"]
        assert await client.closed() == CLOSE_RESTARTING
    assert await asyncio.to_thread(server.process.wait, SLOW) == 0
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
