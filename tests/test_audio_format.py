"""The six formats: what goes in comes out, all of it and as early as the format allows, and nothing stays behind."""

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from server.http import audio_format
from server.http.audio_format import FORMATS, Encoder, ResponseFormat, packed
from tests.test_audio import tone
from vllm_cosyvoice.config import SAMPLE_RATE

LOSSLESS = ("flac", "wav", "pcm")
PADDING = 2400  # samples of silence around a stream of mp3 or aac, which can't tell its length
CASES = [(name, rate) for name, packing in FORMATS.items() for rate in packing.sample_rates]
LATE = {"mp3": 0.15, "opus": 0.1, "aac": 0.15, "flac": 0.1, "wav": 0.0, "pcm": 0.0}  # seconds an encoder holds back


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - threads bring it about
            await asyncio.sleep(0.005)


def pcm(seconds: float) -> bytes:
    return (tone(seconds, frequency=300.0) * 32767).astype("<i2").tobytes()


async def in_pieces(data: bytes, seconds: float) -> AsyncGenerator[bytes, None]:
    size = 2 * round(seconds * SAMPLE_RATE)
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def pack(
    name: ResponseFormat, data: bytes, seconds: float = 0.1, rate: int = SAMPLE_RATE, *, whole: bool = False
) -> list[bytes]:
    return [piece async for piece in packed(in_pieces(data, seconds), FORMATS[name], rate, whole=whole)]


def unpack(name: str, data: bytes, rate: int) -> tuple[np.ndarray, int]:
    """Samples in [−1, 1], and their rate, as a player gets them."""
    if name == "pcm":
        return np.frombuffer(data, "<i2") / 32768, rate
    with av.open(io.BytesIO(data)) as container:
        frames = [frame for frame in container.decode(audio=0) if isinstance(frame, av.AudioFrame)]
    to_float = av.AudioResampler(format="flt", layout="mono", rate=frames[0].sample_rate)
    pieces = [piece.to_ndarray()[0] for frame in [*frames, None] for piece in to_float.resample(frame)]
    return np.concatenate(pieces), frames[0].sample_rate


def seconds_of(name: str, data: bytes) -> float:
    samples, rate = unpack(name, data, SAMPLE_RATE)
    return len(samples) / rate


def test_all_of_openais_formats_are_there_and_mp3_is_the_default() -> None:
    from openai.types.audio.speech_create_params import SpeechCreateParams

    from server.http.speech_body import SpeechBody

    theirs = SpeechCreateParams.__annotations__["response_format"]
    assert all(repr(name) in str(theirs) for name in FORMATS)
    assert set(FORMATS) == set(get_args(ResponseFormat))
    assert SpeechBody.model_fields["response_format"].default == "mp3"


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("name", "rate"), CASES)
async def test_every_sample_comes_out_at_every_rate(name: ResponseFormat, rate: int, whole: bool) -> None:
    data = pcm(2.0117)  # no multiple of any frame
    samples, heard_rate = unpack(name, b"".join(await pack(name, data, 0.37, rate, whole=whole)), rate)
    assert heard_rate == (48_000 if name == "opus" else rate), "opus always decodes at 48 kHz"
    expected = len(data) / 2 * heard_rate / SAMPLE_RATE
    if name in LOSSLESS:
        assert len(samples) == np.ceil(expected)
    elif name == "opus":
        assert abs(len(samples) - expected) <= 3
    elif name == "mp3" and whole:
        assert abs(len(samples) - expected) < 50
    else:
        assert 0 <= len(samples) - expected < PADDING
    heard = np.flatnonzero(np.abs(samples) > 0.1)
    assert (heard[-1] - heard[0]) / heard_rate == pytest.approx(2.0117, abs=0.01), "nothing is cut at either end"
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", LOSSLESS)
async def test_lossless_formats_keep_every_bit(name: ResponseFormat) -> None:
    data = np.random.default_rng(0).integers(-32768, 32768, 100_001, np.int16).tobytes()
    samples, _ = unpack(name, b"".join(await pack(name, data)), SAMPLE_RATE)
    assert (samples * 32768).astype(np.int16).tobytes() == data


@pytest.mark.parametrize("name", FORMATS)
async def test_how_the_audio_was_cut_makes_no_difference(name: ResponseFormat) -> None:
    data = pcm(1.5)
    for rate in (16_000, SAMPLE_RATE):
        fine, coarse = await pack(name, data, 0.01, rate), await pack(name, data, 1.0, rate)
        one, other = (unpack(name, b"".join(packets), rate)[0] for packets in (fine, coarse))
        assert len(one) == len(other)
        assert np.abs(one - other).max() < 1e-3


@pytest.mark.parametrize("name", FORMATS)
async def test_what_has_gone_out_can_be_played_at_once(name: ResponseFormat) -> None:
    data, sent = b"", b""
    encoder = Encoder(FORMATS[name])
    try:
        for piece in [piece async for piece in in_pieces(pcm(3), 0.25)]:
            data, sent = data + piece, sent + encoder.encode(piece)
            fed = len(data) / 2 / SAMPLE_RATE
            assert seconds_of(name, sent) >= fed - LATE[name], f"after {fed} s"
        sent += encoder.finish()
    finally:
        encoder.close()
    assert seconds_of(name, sent) >= 3


async def test_wav_tells_its_length_when_it_knows_it() -> None:
    data = pcm(1)
    streamed, (whole,) = b"".join(await pack("wav", data)), await pack("wav", data, whole=True)
    assert streamed[44:] == whole[44:] == data, "a header has 44 bytes"
    assert streamed[4:8] == streamed[40:44] == b"\xff" * 4, "as OpenAI does"
    with wave.open(io.BytesIO(whole)) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (SAMPLE_RATE, SAMPLE_RATE, 1)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 0.5])
@pytest.mark.parametrize("name", ["wav", "pcm"])
async def test_pcm_that_stays_as_it_is_needs_no_encoder(
    monkeypatch: pytest.MonkeyPatch, name: ResponseFormat, seconds: float, whole: bool
) -> None:
    encoder, data = Encoder(FORMATS[name], whole=whole), pcm(seconds)
    encoded = (encoder.encode(data) if data else b"") + encoder.finish()
    encoder.close()
    monkeypatch.setattr(audio_format, "Encoder", None)
    assert b"".join(await pack(name, data, whole=whole)) == encoded


@pytest.mark.parametrize("name", ["mp3", "flac", "wav"])
async def test_a_whole_file_tells_its_duration(name: ResponseFormat) -> None:
    (data,) = await pack(name, pcm(2.5), whole=True)
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams.audio
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(2.5, abs=0.06)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", FORMATS)
async def test_no_audio_is_no_error(name: ResponseFormat, whole: bool) -> None:
    await pack(name, b"", whole=whole)
    await until(lambda: not Encoder.unclosed)


def test_bit_rates_are_as_stated() -> None:
    for name, packing in FORMATS.items():
        if packing.bit_rate:
            encoder = Encoder(packing)
            noise = np.random.default_rng(0).normal(0, 3000, 10 * SAMPLE_RATE).astype(np.int16)
            size = len(encoder.encode(noise.tobytes()) + encoder.finish())
            encoder.close()
            assert size * 8 / 10 == pytest.approx(packing.bit_rate, rel=0.15), name


@pytest.mark.parametrize("name", ["mp3", "flac"])
async def test_leaving_at_any_time_closes_the_encoder_and_the_audio(name: ResponseFormat) -> None:
    ended = 0

    async def audio() -> AsyncGenerator[bytes, None]:
        nonlocal ended
        try:
            while True:
                yield pcm(0.5)
        finally:
            ended += 1

    async def read(seconds: float) -> None:
        async with asyncio.timeout(seconds):
            async for _ in packed(audio(), FORMATS[name]):
                pass

    async def read_one() -> None:
        pieces = packed(audio(), FORMATS[name])
        await anext(pieces)
        await pieces.aclose()

    await asyncio.gather(*(read(0.003 * number) for number in range(20)), return_exceptions=True)
    await asyncio.gather(*(read_one() for _ in range(20)))
    await until(lambda: not Encoder.unclosed)
    assert ended >= 20


async def test_abandoned_encoders_give_their_memory_back() -> None:
    async def abandon() -> None:
        pieces = packed(in_pieces(pcm(1), 0.5), FORMATS["flac"])
        await anext(pieces)
        await pieces.aclose()
        await until(lambda: not Encoder.unclosed)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(5):
        await abandon()
    before = resident()
    for _ in range(40):
        await abandon()
    assert resident() - before < 40 << 20, "unclosed, they would keep 7 MB each"


async def test_who_reads_slowly_gets_the_audio_made_slowly() -> None:
    made = 0

    async def audio() -> AsyncGenerator[bytes, None]:
        nonlocal made
        for _ in range(100):
            made += 1
            yield pcm(0.5)

    pieces = packed(audio(), FORMATS["mp3"])
    for read in range(1, 6):
        await anext(pieces)
        await asyncio.sleep(0.05)
        assert made == read
    await pieces.aclose()


async def test_the_event_loop_goes_on_while_audio_is_packed() -> None:
    """A minute of mp3 is one call of the encoder, and none of the loop's."""
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    work = asyncio.create_task(other_work())
    await pack("mp3", pcm(60), 60)
    work.cancel()
    assert turns > 100


async def test_an_error_in_the_audio_comes_out_after_what_was_heard() -> None:
    async def audio() -> AsyncGenerator[bytes, None]:
        yield pcm(1)
        raise RuntimeError("broken")

    pieces = packed(audio(), FORMATS["opus"])
    assert await anext(pieces)
    with pytest.raises(RuntimeError, match="broken"):
        await anext(pieces)
    await until(lambda: not Encoder.unclosed)
