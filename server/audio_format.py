"""How the audio of an answer is packed."""

import struct
from dataclasses import dataclass

from vllm_cosyvoice.config import SAMPLE_RATE

UNKNOWN_SIZE = 0xFFFFFFFF


def wav_header(data_bytes: int | None = None) -> bytes:
    """The 44 bytes ahead of 24 kHz mono int16 samples. While streaming nobody knows the size: all ones, as OpenAI."""
    riff_bytes, data_bytes = (UNKNOWN_SIZE, UNKNOWN_SIZE) if data_bytes is None else (36 + data_bytes, data_bytes)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", riff_bytes, b"WAVE"),
        *(b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16),
        *(b"data", data_bytes),
    )


@dataclass(frozen=True)
class AudioFormat:
    """A `response_format`: its content type and what goes ahead of the samples."""

    media_type: str
    header: bytes


FORMATS = {
    "wav": AudioFormat("audio/wav", wav_header()),
    "pcm": AudioFormat("audio/pcm", b""),
}
