"""`POST /v1/audio/speech` as the `openai` package's users know it: every field, every format, every error."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import httpx2
import numpy as np
import pytest
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from openai.types.audio import SpeechModel
from openai.types.audio.speech_create_params import Voice

from server.http.audio_format import FORMATS, ResponseFormat
from tests.server_process import BODY, ServerProcess, eventually, exactly
from tests.test_audio_format import LOSSLESS, unpack
from vllm_cosyvoice import Synthesizer
from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_TOKEN
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.text import TextFrontEnd
from vllm_cosyvoice.text.front_end import SILENCE

KEY = "a-key-for-the-tests"
TOKENS = 60  # several hops
SECONDS = TOKENS * SAMPLES_PER_TOKEN / SAMPLE_RATE
PADDING = 0.1  # seconds around mp3 and aac
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
MODELS = [*get_args(SpeechModel), "tts-1-1106", "tts-1-hd-1106", "gpt-4o-mini-tts-2025-03-20"]
VOICES = [name for kind in get_args(Voice) for name in get_args(kind) if isinstance(name, str)]


async def speak(openai: AsyncOpenAI, tokens: int = 10, **fields: Any) -> httpx2.Response:
    """What OpenAI's client gets."""
    extra = exactly(tokens) | fields.pop("extra_body", {})
    return (await openai.audio.speech.create(**BODY | fields, extra_body=extra)).response


def assert_lasts(name: ResponseFormat, data: bytes, seconds: float = SECONDS, rate: int = SAMPLE_RATE) -> None:
    """`data` decodes to that much audio: to the sample where the format can do that."""
    samples, heard_rate = unpack(name, data, rate)
    if name in LOSSLESS:
        assert len(samples) == round(seconds * heard_rate)
    else:
        assert 0 <= len(samples) / heard_rate - seconds < PADDING * SAMPLE_RATE / min(rate, SAMPLE_RATE)


# The six formats


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_is_streamed_and_complete(openai: AsyncOpenAI, name: ResponseFormat) -> None:
    create = openai.audio.speech.with_streaming_response.create
    async with create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello.", response_format=name, extra_body=exactly(TOKENS)
    ) as answer:
        pieces = [piece async for piece in answer.iter_bytes()]
    assert answer.headers["content-type"] == CONTENT_TYPES[name]
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-length" not in answer.headers
    assert len(pieces) > 1
    assert_lasts(name, b"".join(pieces))


@pytest.mark.parametrize("name", FORMATS)
async def test_without_streaming_the_length_is_told(openai: AsyncOpenAI, name: ResponseFormat) -> None:
    answer = await speak(openai, TOKENS, response_format=name, extra_body={"stream": False})
    assert answer.headers["content-type"] == CONTENT_TYPES[name]
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert_lasts(name, answer.content)
    if name == "wav":
        assert int.from_bytes(answer.content[40:44], "little") == len(answer.content) - 44


async def test_mp3_is_the_default_and_streams_unless_told_otherwise(openai: AsyncOpenAI) -> None:
    for extra in ({}, {"stream": True}, {"stream": None}):
        answer = await openai.audio.speech.create(
            model="tts-1", voice="nova", input="Hello.", extra_body=exactly(10) | extra
        )
        assert answer.response.headers["content-type"] == "audio/mpeg"
        assert "content-length" not in answer.response.headers
        assert_lasts("mp3", answer.content, 0.4)


async def test_audio_comes_while_tokens_are_generated_and_leaving_ends_everything(
    server: ServerProcess, openai: AsyncOpenAI
) -> None:
    create = openai.audio.speech.with_streaming_response.create
    async with create(model="tts-1", voice="alloy", input="Hello.", extra_body=exactly(6000)) as answer:
        pieces = answer.iter_bytes()
        assert await anext(pieces)
        numbers = await asyncio.to_thread(server.numbers)
        assert numbers["segments_running"]["generate-0"] == 1
        assert sum(numbers["encoders"].values()) == 1
    await eventually(server.idle, "every stage is free again, and the encoder closed")


async def test_leaving_whenever_leaves_nothing(server: ServerProcess, openai: AsyncOpenAI) -> None:
    async def leave(number: int) -> None:
        impatient = openai.with_options(timeout=0.02 * (number + 1))
        stream_format = "sse" if number % 3 == 0 else "audio"
        fields = {"response_format": list(FORMATS)[number % 6], "stream_format": stream_format}
        with pytest.raises((APITimeoutError, RateLimitError)):
            await speak(impatient, 500, **fields, extra_body={"stream": number % 2 == 0})

    await asyncio.gather(*(leave(number) for number in range(36)))
    await eventually(server.idle, "nothing is left of the requests")


@pytest.mark.parametrize(("name", "rate"), [("pcm", 8000), ("wav", 48_000), ("mp3", 44_100), ("opus", 16_000)])
async def test_another_sample_rate(openai: AsyncOpenAI, name: ResponseFormat, rate: int) -> None:
    answer = await speak(openai, TOKENS, response_format=name, extra_body={"sample_rate": rate})
    assert_lasts(name, answer.content, rate=rate)


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_engine_in_one_process_speaks_the_same(
    openai: AsyncOpenAI, synthesizer: Synthesizer, streaming: bool
) -> None:
    spoken = await speak(openai, TOKENS, speed=1.25, extra_body={"stream": streaming})
    sampling = SamplingOptions(min_tokens=TOKENS, max_tokens=TOKENS, seed=0)
    request = SpeechRequest(id="r", text=BODY["input"], speed=1.25, sampling=sampling, streaming=streaming)
    alone = await asyncio.to_thread(synthesizer.audio_of, request)
    together = np.frombuffer(spoken.content, np.int16)
    # Sums of floats depend on how they are split: among threads, and by the requests that computed the voice's prompt.
    np.testing.assert_allclose(together.astype(np.int32), alone, atol=10)


async def test_speed_holds_in_a_stream(openai: AsyncOpenAI) -> None:
    for speed in (0.5, 2.0):
        answer = await speak(openai, TOKENS, response_format="wav", speed=speed)
        samples, rate = unpack("wav", answer.content, SAMPLE_RATE)
        assert len(samples) / rate == pytest.approx(SECONDS / speed, abs=0.05)


@pytest.mark.parametrize("name", FORMATS)
async def test_text_without_words_is_a_short_silence_that_players_decode(
    openai: AsyncOpenAI, name: ResponseFormat
) -> None:
    """Programs try a key with a dot, and chat models write sentences of dots."""
    for stream in (True, False):
        answer = await speak(openai, input=".", response_format=name, extra_body={"stream": stream})
        assert_lasts(name, answer.content, SILENCE)
        assert np.abs(unpack(name, answer.content, SAMPLE_RATE)[0]).max() < 0.001


@pytest.mark.parametrize(
    ("text", "seconds"), [("…!?", SILENCE), ("。", SILENCE), ("🙂", SILENCE), ("[pause:1s] .", 1.0)]
)
async def test_text_without_words_is_as_long_as_its_pauses(openai: AsyncOpenAI, text: str, seconds: float) -> None:
    assert_lasts("pcm", (await speak(openai, input=text)).content, seconds)


# Server-sent events


async def sent_events(openai: AsyncOpenAI, tokens: int = TOKENS, **fields: Any) -> AsyncIterator[dict[str, Any]]:
    """As LiveKit reads them."""
    extra = exactly(tokens) | fields.pop("extra_body", {})
    create = openai.audio.speech.with_streaming_response.create
    async with create(**BODY | fields, stream_format="sse", extra_body=extra) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.iter_lines():
            if line:
                assert line.startswith("data: ")
                assert len(line) < 1 << 16
                yield json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("name", FORMATS)
async def test_events_carry_every_format_and_end_with_the_usage(
    openai: AsyncOpenAI, tiny_model: Path, name: ResponseFormat
) -> None:
    text = "The sun rose over the hills."
    *deltas, done = [event async for event in sent_events(openai, response_format=name, input=text)]
    assert len(deltas) > 1
    assert all(set(event) == {"type", "audio"} and event["type"] == "speech.audio.delta" for event in deltas)
    assert_lasts(name, b"".join(base64.b64decode(event["audio"], validate=True) for event in deltas))
    read = len(TextFrontEnd(tiny_model / "CosyVoice-BlankEN").tokens(text))
    usage = {"input_tokens": read, "output_tokens": TOKENS, "total_tokens": read + TOKENS}
    assert done == {"type": "speech.audio.done", "usage": usage}


async def test_headers_tell_the_usage_that_is_known(openai: AsyncOpenAI, tiny_model: Path) -> None:
    text = "The sun rose over the hills."
    read = str(len(TextFrontEnd(tiny_model / "CosyVoice-BlankEN").tokens(text)))

    async def told(**extra: object) -> dict[str, str]:
        headers = (await speak(openai, TOKENS, input=text, extra_body=extra)).headers
        return {name: value for name, value in headers.items() if name.endswith("-tokens")}

    assert await told() == {"x-vllm-omni-input-tokens": read}
    assert await told(stream_format="sse") == {}
    assert await told(stream=False) == {
        "x-vllm-omni-input-tokens": read,
        "x-vllm-omni-output-tokens": str(TOKENS),
        "x-vllm-omni-total-tokens": str(int(read) + TOKENS),
    }


async def test_usage_is_that_of_all_segments(openai: AsyncOpenAI, tiny_model: Path) -> None:
    text = " ".join(f"This is sentence {n} of a rather long story about a very small village." for n in range(10))
    front_end = TextFrontEnd(tiny_model / "CosyVoice-BlankEN")
    segments = front_end.segments(text)
    assert len(segments) > 1
    events = [event async for event in sent_events(openai, 12, input=text)]
    assert events[-1]["usage"]["input_tokens"] == sum(len(front_end.tokens(segment)) for segment in segments)
    assert events[-1]["usage"]["output_tokens"] == 12 * len(segments)


async def test_events_and_plain_audio_are_the_same_bytes(openai: AsyncOpenAI) -> None:
    for extra in ({}, {"stream": False}):
        events = [event async for event in sent_events(openai, response_format="flac", extra_body=extra)]
        plain = await speak(openai, TOKENS, response_format="flac", extra_body=extra)
        assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == plain.content


# Voices, models, and what else OpenAI's callers send


@pytest.mark.parametrize("voice", [*VOICES, {"id": "alloy"}, {"id": "default"}, "narrator"])
async def test_openais_voices_and_the_operators_aliases_speak(openai: AsyncOpenAI, voice: Any) -> None:
    assert_lasts("pcm", (await speak(openai, 5, voice=voice)).content, 0.2)


async def test_an_alias_is_the_voice_it_stands_for(openai: AsyncOpenAI) -> None:
    spoken = {voice: (await speak(openai, voice=voice)).content for voice in ("alloy", "slt", "narrator")}
    assert spoken["alloy"] == spoken["slt"] != spoken["narrator"]
    assert (await speak(openai, voice="English male")).content == spoken["narrator"]


async def test_openais_models_are_served_listed_and_found(openai: AsyncOpenAI, tiny_model: Path) -> None:
    listed = [model.id async for model in openai.models.list()]
    assert listed[0] == tiny_model.name
    assert set(listed[1:]) == set(MODELS)
    for name in listed:
        assert (await openai.models.retrieve(name)).id == name
        assert_lasts("pcm", (await speak(openai, 5, model=name)).content, 0.2)


async def test_open_webui_finds_models_without_its_key(server: ServerProcess, tiny_model: Path) -> None:
    async with server.client() as client:
        models = (await client.get("/v1/audio/models")).json()["models"]
    assert models[0]["id"] == tiny_model.name
    assert {model["id"] for model in models[1:]} == set(MODELS)


async def test_pauses_are_silence_of_their_length(openai: AsyncOpenAI) -> None:
    text = '[pause:500ms] Hello. [pause:1.5s] Goodbye. <break time="1s"/>'
    samples = np.frombuffer((await speak(openai, 20, input=text, extra_body={"stream": False})).content, np.int16)
    speech = 20 * SAMPLES_PER_TOKEN
    lengths = [SAMPLE_RATE // 2, speech, 3 * SAMPLE_RATE // 2, speech, SAMPLE_RATE]
    assert len(samples) == sum(lengths)
    parts = np.split(samples, np.cumsum(lengths)[:-1])
    assert [bool(part.any()) for part in parts] == [False, True, False, True, False]


async def text_tokens(openai: AsyncOpenAI, **fields: Any) -> int:
    """Of what is spoken, as the usage tells."""
    body = BODY | {"response_format": "pcm"} | fields.pop("body", {})
    extra = exactly(10) | fields
    answer = await openai.audio.speech.create(**body, stream_format="sse", extra_body=extra)
    events = [json.loads(line.removeprefix(b"data: ")) for line in answer.content.split(b"\n") if line]
    return int(events[-1]["usage"]["input_tokens"])


async def test_what_is_spoken_follows_language_normalize_and_pronunciations(
    openai: AsyncOpenAI, tiny_model: Path
) -> None:
    front_end = TextFrontEnd(tiny_model / "CosyVoice-BlankEN")

    def tokens(text: str) -> int:
        return len(front_end.tokens(text))

    for fields, said in (
        ({}, "It costs five dollars."),
        ({"normalize": False}, "It costs $5."),
        ({"pronunciations": {"costs": "cossts"}}, "It cossts five dollars."),
    ):
        assert await text_tokens(openai, body={"input": "It costs $5."}, **fields) == tokens(said), fields
    named = await text_tokens(openai, body={"input": "Nur 42 Euro."}, language="German")
    assert named == tokens("Nur zweiundvierzig Euro.")
    assert await text_tokens(openai, body={"input": "It costs $5."}, language="Auto") == tokens(
        "It costs five dollars."
    )
    german = await text_tokens(openai, body={"input": "Nur 42 Euro."}, language="de")
    assert german == tokens("Nur zweiundvierzig Euro.")


async def test_instructions_are_followed_by_every_model_and_unknown_fields_are_ignored(openai: AsyncOpenAI) -> None:
    extra = {"language": "en", "task_type": "Base", "x_vector_only_mode": True, "user": None}
    plain = await speak(openai, model="tts-1", extra_body=extra)
    told = await speak(openai, model="tts-1", instructions="Speak softly.", extra_body=extra)
    assert len(plain.content) == len(told.content)
    assert plain.content != told.content


# Errors, as OpenAI's client raises them


async def refused(openai: AsyncOpenAI, kind: type[APIStatusError], **fields: Any) -> APIStatusError:
    """The error of a request, which names itself and what is wrong."""
    with pytest.raises(kind) as raised:
        await speak(openai, **fields)
    error = raised.value
    assert type(error) is kind
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    return error


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "input", ""),
    ({"input": " \n"}, "input", "nothing to speak"),
    ({"input": "a" * 4097}, "input", "4096"),
    ({"voice": "nobody"}, "voice", "default"),
    ({"voice": {"id": "nobody"}}, "voice", "default"),
    ({"voice": {"name": "alloy"}}, "voice", ""),
    ({"voice": "lost"}, "voice", "nobody"),
    ({"extra_body": {"language": "the one of birds"}}, "language", "code"),
    ({"extra_body": {"pronunciations": {"": "x"}}}, "pronunciations", "at least 1"),
    ({"input": "Wait. " + 7 * "[pause:10s]"}, "input", "60 s"),
    ({"input": "Wait. [pause:1h]"}, "input", "[pause:1.5s]"),
    ({"response_format": "midi"}, "response_format", "'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'"),
    ({"response_format": "MP3"}, "response_format", "'mp3'"),
    ({"stream_format": "events"}, "stream_format", "'audio' or 'sse'"),
    ({"speed": 0.2}, "speed", "0.25"),
    ({"speed": 4.1}, "speed", "4"),
    ({"speed": "fast"}, "speed", "number"),
    ({"instructions": "a" * 4097}, "instructions", "4096"),
    ({"extra_body": {"sample_rate": 11_025}}, "sample_rate", "22050"),
    ({"extra_body": {"sample_rate": 44_100}, "response_format": "opus"}, "sample_rate", "8000, 16000, 24000, 48000"),
    ({"extra_body": {"stream": "yes"}}, "stream", "boolean"),
    ({"extra_body": {"seed": -1}}, "seed", "2**63"),
    ({"extra_body": {"max_tokens": 0}}, "max_tokens", "1"),
]


@pytest.mark.parametrize(("fields", "param", "says"), BAD_FIELDS)
async def test_a_bad_field_is_named(openai: AsyncOpenAI, fields: dict[str, Any], param: str, says: str) -> None:
    for stream_format in ("audio", "sse"):
        error = await refused(openai, BadRequestError, **{"stream_format": stream_format} | fields)
        assert (error.status_code, error.param, error.code) == (400, param, "invalid_value")
        assert error.type == "invalid_request_error"
        assert says in error.message


async def test_an_unknown_model_is_not_found(openai: AsyncOpenAI) -> None:
    error = await refused(openai, NotFoundError, model="tts-2")
    assert (error.param, error.code) == ("model", "model_not_found")
    with pytest.raises(NotFoundError, match="gpt-5"):
        await openai.models.retrieve("openai/gpt-5")


async def test_a_body_that_is_too_large_is_refused_as_such(openai: AsyncOpenAI) -> None:
    error = await refused(openai, APIStatusError, extra_body={"padding": "a" * (24 << 20)})
    assert error.status_code == 413


async def test_a_server_that_is_gone_is_a_connection_error(openai: AsyncOpenAI) -> None:
    with pytest.raises(APIConnectionError):
        await speak(openai.with_options(base_url="http://127.0.0.1:9/v1"))
