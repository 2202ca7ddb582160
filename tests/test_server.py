"""What a caller of a running server relies on: several http workers, one engine, a tiny random model."""

import asyncio
import json
import random
import struct
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from server.observe.metrics import HELP
from tests.server_process import (
    BODY,
    SLOW,
    ServerProcess,
    alive,
    error_of,
    eventually,
    exactly,
)
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN
from vllm_cosyvoice.text import TextFrontEnd

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN


async def test_eight_callers_at_once_each_get_their_own_audio(openai: AsyncOpenAI) -> None:
    async def speak(tokens: int) -> int:
        fields = BODY | {"input": f"Sentence number {tokens}."}
        answer = await openai.audio.speech.create(**fields, extra_body=exactly(tokens))  # type: ignore[arg-type] # a dict
        return len(answer.content)

    lengths = [7, 30, 61, 20, 100, 25, 50, 75]
    assert await asyncio.gather(*map(speak, lengths)) == [tokens * BYTES_PER_TOKEN for tokens in lengths]


async def test_wav_says_what_it_holds(openai: AsyncOpenAI) -> None:
    create = openai.audio.speech.with_streaming_response.create
    async with create(
        model="gpt-4o-mini-tts", input="Hello.", voice={"id": "default"}, response_format="wav", extra_body=exactly(30)
    ) as answer:
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["x-request-id"].startswith("req_")
        content = b"".join([chunk async for chunk in answer.iter_bytes()])
    riff, size, wave, fmt, length, kind, channels, rate, per_second, frame, bits, data, data_size = struct.unpack(
        "<4sI4s4sIHHIIHH4sI", content[:44]
    )
    assert (riff, wave, fmt, data) == (b"RIFF", b"WAVE", b"fmt ", b"data")
    assert (length, kind, channels, rate, per_second, frame, bits) == (16, 1, 1, 24_000, 48_000, 2, 16)
    assert size == data_size == 0xFFFFFFFF, "the size is not known while streaming"
    assert len(content) == 44 + 30 * BYTES_PER_TOKEN


async def test_audio_comes_while_tokens_are_generated_and_leaving_stops_them(server: ServerProcess) -> None:
    tokens = 6000

    def generated() -> int:
        return server.numbers()["speech_tokens_total"]["generate-0"]

    before = generated()
    async with server.speaking(tokens):
        assert server.numbers()["segments_running"]["generate-0"] == 1
        assert generated() < before + tokens
    await eventually(server.idle, "every stage is free again")
    assert generated() < before + tokens


async def test_long_text_is_spoken_whole_and_in_order(server: ServerProcess, tiny_model: Path) -> None:
    sentences = [f"This is sentence number {n} of a rather long story about a very small village." for n in range(24)]
    text = " ".join(sentences)
    segments = len(TextFrontEnd(tiny_model / "CosyVoice-BlankEN").segments(text))
    assert segments > 4, "more than are in the engine at a time"
    async with server.client() as client:
        answer = await client.post("/v1/audio/speech", json=BODY | {"input": text} | exactly(12))
    assert len(answer.content) == segments * 12 * BYTES_PER_TOKEN


async def test_equal_seeds_speak_alike_and_other_options_arrive(server: ServerProcess) -> None:
    async def speak(**fields: object) -> int:
        async with server.client() as client:
            answer = await client.post("/v1/audio/speech", json=BODY | fields)
        assert answer.status_code == 200, answer.text
        return len(answer.content)

    assert await speak(seed=7) == await speak(seed=7)
    assert await speak(**exactly(40), speed=2.0) == pytest.approx(20 * BYTES_PER_TOKEN, rel=0.1)
    assert await speak(**exactly(40), instructions="Speak softly.") == 40 * BYTES_PER_TOKEN


@pytest.mark.parametrize(
    ("change", "status", "param", "says"),
    [
        ({"model": 5}, 400, "model", "string"),
        ({"model": "tts-9"}, 404, "model", "tts-1"),
        ({"input": ""}, 400, "input", ""),
        ({"input": " \n"}, 400, "input", ""),
        ({"input": "a" * 4097}, 400, "input", "4096"),
        ({"input": "a" * (1 << 20)}, 400, "input", "4096"),
        ({"input": 5}, 400, "input", "string"),
        ({"input": "\ud800"}, 400, "input", ""),
        ({"voice": "nobody"}, 400, "voice", "default"),
        ({"voice": "\ud800"}, 400, "voice", "half a character"),
        ({"voice": {"id": "\ud800"}}, 400, "voice", ""),
        ({"model": "\ud800"}, 400, "model", "half a character"),
        ({"ref_text": "\ud800"}, 400, "ref_text", "nicode"),
        ({"voice": "../default"}, 400, "voice", "default"),
        ({"voice": 5}, 400, "voice", ""),
        ({"voice": {"name": "default"}}, 400, "voice", ""),
        ({"response_format": "midi"}, 400, "response_format", "'mp3'"),
        ({"response_format": 5}, 400, "response_format", "'mp3'"),
        ({"stream_format": "events"}, 400, "stream_format", "sse"),
        ({"speed": 0.2}, 400, "speed", "0.25"),
        ({"speed": 4.1}, 400, "speed", "4"),
        ({"speed": float("nan")}, 400, "speed", ""),
        ({"speed": "fast"}, 400, "speed", "number"),
        ({"instructions": "a" * 4097}, 400, "instructions", "4096"),
        ({"seed": -1}, 400, "seed", "2**63"),
        ({"temperature": -0.1}, 400, "temperature", "0"),
        ({"top_p": 0}, 400, "top_p", "1"),
        ({"top_k": 0}, 400, "top_k", "1"),
        ({"top_k": 1.5}, 400, "top_k", "integer"),
        ({"max_tokens": 0}, 400, "max_tokens", "1"),
        ({"min_tokens": 10, "max_tokens": 9}, 400, "max_tokens", "min_tokens"),
        ({"min_tokens": 6751, "max_tokens": 6751}, 400, "min_tokens", "6750"),
        ({"max_tokens": 6751}, 400, "max_tokens", "6750"),
    ],
)
async def test_bad_input_is_named(
    server: ServerProcess, change: dict[str, object], status: int, param: str, says: str
) -> None:
    async with server.client() as client:
        body = json.dumps(BODY | change).encode()
        answer = await client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = error_of(answer)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "says"),
    [
        ("POST", "/v1/audio/speech", b"{", 400, "not valid JSON"),
        ("POST", "/v1/audio/speech", b"[]", 400, "JSON object"),
        ("POST", "/v1/audio/speech", b"[" * 100_000, 400, ""),
        ("POST", "/v1/audio/speech", b"", 400, "JSON object"),
        ("POST", "/v1/audio/speech", b" " * (20 << 20) + b"{}", 413, "larger"),
        ("GET", "/v1/audio/speech", b"", 405, "GET"),
        ("POST", "/v1/audio/song", b"", 404, "/v1/audio/song"),
        ("GET", "/v1/models/tts-9", b"", 404, "tts-9"),
    ],
)
async def test_what_no_route_takes_is_answered_in_the_envelope(
    server: ServerProcess, method: str, path: str, content: bytes, status: int, says: str
) -> None:
    async with server.client() as client:
        answer = await client.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert says in error_of(answer)["message"]


async def test_every_http_worker_alone_reaches_the_engine(server: ServerProcess) -> None:
    """With the others stopped, it takes the connection."""
    names = {f"http-{number}" for number in range(4)}
    for name in sorted(names):
        others = [server.named(other) for other in names - {name}]
        for other in others:
            other.suspend()
        try:
            async with server.client() as client:
                answer = await client.post("/v1/audio/speech", json=BODY | exactly(10))
                assert len(answer.content) == 10 * BYTES_PER_TOKEN
            assert server.numbers()["requests_total"].keys() == {name}, "a stopped process can't answer"
        finally:
            for other in others:
                other.resume()
    assert server.numbers()["requests_total"].keys() == names
    assert server.numbers()["segments"].keys() == names | {"generate-0", "decode-0"}, "one engine"


def test_every_number_is_explained(server: ServerProcess) -> None:
    text = httpx.get(f"{server.url}/metrics", timeout=SLOW).text
    families = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(families) > 20
    assert {family.removeprefix("cosyvoice_") for family in families} <= set(HELP)


async def test_callers_that_leave_leave_nothing_behind(server: ServerProcess) -> None:
    chance = random.Random(0)

    async def call_and_leave() -> None:
        async with server.client() as client:
            call = asyncio.create_task(client.post("/v1/audio/speech", json=BODY | exactly(chance.randrange(5, 500))))
            await asyncio.wait([call], timeout=chance.choice([0.0, 0.02, 0.1, 0.5, 1.0]))
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    async def calls(count: int) -> tuple[int, int]:
        for _ in range(count // 20):
            await asyncio.gather(*(call_and_leave() for _ in range(20)))
        await eventually(server.idle, "every stage is free again")
        family = alive(server.family())
        return sum(process.memory_info().rss for process in family), sum(process.num_fds() for process in family)

    unfinished = sum(server.numbers()["requests_unfinished_total"].values())
    memory, files = await calls(40)  # buffers and pools grow to their size
    memory_after, files_after = await calls(60)
    assert sum(server.numbers()["requests_unfinished_total"].values()) > unfinished + 4, "some left in the middle"
    assert memory_after - memory < 64 << 20
    assert files_after <= files + 4
    async with server.client() as client:
        answer = await client.post("/v1/audio/speech", json=BODY | exactly(20))
    assert len(answer.content) == 20 * BYTES_PER_TOKEN
