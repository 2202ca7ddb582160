"""Encodes complete audio as a file."""

from io import BytesIO
from typing import Literal

import av
import numpy as np

from vllm_cosyvoice.config import SAMPLE_RATE

AudioFileFormat = Literal["wav", "flac"]
CODECS: dict[AudioFileFormat, str] = {"wav": "pcm_s16le", "flac": "flac"}
REPRODUCIBLE = {"fflags": "+bitexact"}  # keeps FFmpeg's version out of the headers


def audio_file(audio: np.ndarray, file_format: AudioFileFormat) -> bytes:
    """Encode `audio`, int16 [samples], mono, 24 kHz, as a file. Both formats are lossless."""
    return _file(audio, "s16", SAMPLE_RATE, file_format, CODECS[file_format])


def recording_file(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encode `samples`, float32 [n], mono, as a WAV file without conversion."""
    return _file(samples.astype(np.float32), "flt", sample_rate, "wav", "pcm_f32le")


def _file(samples: np.ndarray, sample_format: str, sample_rate: int, file_format: AudioFileFormat, codec: str) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format=file_format, container_options=REPRODUCIBLE) as container:
        stream = container.add_stream(codec, rate=sample_rate, layout="mono")
        if len(samples):
            frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
            frame.sample_rate = sample_rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
