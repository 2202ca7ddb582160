"""The encoding of audio in six formats, each of them streaming."""

import asyncio
import io
import os
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import av
import numpy as np

from vllm_cosyvoice.config import SAMPLE_RATE

ResponseFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
SampleRate = Literal[8000, 16000, 22050, 24000, 32000, 44100, 48000]
SAMPLE_RATES: tuple[int, ...] = get_args(SampleRate)
UNKNOWN_LENGTH = 0xFFFFFFFF  # the length in the header of a WAV stream


@dataclass(frozen=True)
class AudioFormat:
    """A `response_format`: its content type, and FFmpeg's names of its muxer and codec."""

    media_type: str
    muxer: str
    codec: str
    bit_rate: int | None = None  # bits a second
    codec_options: Mapping[str, str] = field(default_factory=dict)
    muxer_options: Mapping[str, str] = field(default_factory=dict)
    streaming_options: Mapping[str, str] = field(default_factory=dict)  # of the muxer, when the length is unknown
    sample_rates: tuple[int, ...] = SAMPLE_RATES
    header: Callable[[int | None], bytes] | None = None
    """What stands before int16 PCM of so many bytes, None if unknown, in a format that keeps PCM as it is."""


def _wav_header(size: int | None) -> bytes:
    riff, data = (UNKNOWN_LENGTH, UNKNOWN_LENGTH) if size is None else (36 + size, size)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", riff, b"WAVE"),
        *(b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16),  # PCM, mono
        *(b"data", data),
    )


FORMATS: Mapping[ResponseFormat, AudioFormat] = {
    "mp3": AudioFormat(
        "audio/mpeg",
        "mp3",
        "libmp3lame",
        bit_rate=96_000,
        muxer_options={"id3v2_version": "0"},
        streaming_options={"write_xing": "0"},  # no leading frame with the length
    ),
    "opus": AudioFormat(
        "audio/ogg",
        "ogg",
        "libopus",
        bit_rate=48_000,
        muxer_options={"page_duration": "40000"},  # microseconds; FFmpeg's default of a second delays playback
        sample_rates=(8000, 16000, 24000, 48000),
    ),
    # Above 64 kbit/s the fast coder sounds as good as FFmpeg's default, in a fraction of the time.
    "aac": AudioFormat("audio/aac", "adts", "aac", bit_rate=96_000, codec_options={"aac_coder": "fast"}),
    "flac": AudioFormat("audio/flac", "flac", "flac", muxer_options={"metadata_header_padding": "0"}),
    "wav": AudioFormat("audio/wav", "wav", "pcm_s16le", header=_wav_header),
    "pcm": AudioFormat("audio/pcm", "s16le", "pcm_s16le", header=lambda _: b""),
}
REPRODUCIBLE = {"fflags": "+bitexact"}  # keeps FFmpeg's version out of the headers

_threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="pack")  # encoders release the GIL


def packed(
    pieces: AsyncGenerator[bytes, None],
    audio_format: AudioFormat,
    sample_rate: int = SAMPLE_RATE,
    *,
    whole: bool = False,
) -> AsyncGenerator[bytes, None]:
    """Yield `pieces` of int16 PCM, mono, 24 kHz, in `audio_format` as they come.

    `whole`: all audio in one piece, with the true length in its header, which a stream can't have.
    A slow reader slows `pieces` down (backpressure). Closing this generator closes `pieces`.
    """
    if audio_format.header is not None and sample_rate == SAMPLE_RATE:
        return _as_it_is(pieces, audio_format.header, whole=whole)
    return _encoded(pieces, audio_format, sample_rate, whole=whole)


async def _as_it_is(
    pieces: AsyncGenerator[bytes, None], header: Callable[[int | None], bytes], *, whole: bool
) -> AsyncGenerator[bytes, None]:
    """Add only a header, which takes less time than a switch to a thread."""
    async with aclosing(pieces):
        if whole:
            if audio := b"".join([piece async for piece in pieces]):
                yield header(len(audio)) + audio
        else:
            before = header(None)
            async for piece in pieces:
                yield before + piece
                before = b""


async def _encoded(
    pieces: AsyncGenerator[bytes, None], audio_format: AudioFormat, sample_rate: int, *, whole: bool
) -> AsyncGenerator[bytes, None]:
    """Encode in a thread. Closing this generator closes the encoder."""
    loop = asyncio.get_running_loop()
    encoder = Encoder(audio_format, sample_rate, whole=whole)
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if data := await loop.run_in_executor(_threads, encoder.encode, piece):
                    yield data
        if data := await loop.run_in_executor(_threads, encoder.finish):
            yield data
    finally:
        _threads.submit(encoder.close)


class Encoder:
    """Encodes one stream of audio. Thread-safe.

    Always close it, also after an error: otherwise FFmpeg's memory leaks, 7 MB for FLAC.
    """

    unclosed: ClassVar[set["Encoder"]] = set()

    def __init__(self, audio_format: AudioFormat, sample_rate: int = SAMPLE_RATE, *, whole: bool = False) -> None:
        self._format = audio_format
        self._sample_rate = sample_rate
        self._sink = _Whole() if whole else _Stream()
        self._lock = threading.Lock()
        self._opened: tuple[av.container.OutputContainer, av.AudioStream] | None = None
        self.unclosed.add(self)

    def encode(self, pcm: bytes) -> bytes:
        """Encode int16 PCM; returns the bytes that are ready."""
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        with self._lock:
            container, stream = self._open()
            container.mux(stream.encode(frame))
            return self._sink.take()

    def finish(self) -> bytes:
        """Flush the encoder after the last PCM; returns the remaining bytes."""
        with self._lock:
            container, stream = self._open()
            container.mux(stream.encode(None))
            container.close()
            return self._sink.rest()

    def close(self) -> None:
        """Free FFmpeg's memory."""
        with self._lock:
            if self._opened:
                self._opened[0].close()
            self._opened = None
        self.unclosed.discard(self)

    def _open(self) -> "tuple[av.container.OutputContainer, av.AudioStream]":
        if self._opened:
            return self._opened
        options = {**REPRODUCIBLE, **self._format.muxer_options}
        if isinstance(self._sink, _Stream):
            options |= self._format.streaming_options
        container = av.open(self._sink, "w", format=self._format.muxer, container_options=options)
        stream = container.add_stream(
            self._format.codec, rate=self._sample_rate, options=dict(self._format.codec_options), layout="mono"
        )
        if self._format.bit_rate:
            stream.bit_rate = self._format.bit_rate
        self._opened = container, stream
        return self._opened


class _Stream:
    """A file that FFmpeg writes and that can be read at any time. It can't seek, so written bytes never change."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data

    rest = take


class _Whole(io.BytesIO):
    """A file that FFmpeg writes and whose header it corrects when the length is known."""

    def take(self) -> bytes:
        return b""

    def rest(self) -> bytes:
        return self.getvalue()
