"""Finished audio as a file."""

from io import BytesIO
from typing import Literal

import av
import numpy as np

from vllm_cosyvoice.config import SAMPLE_RATE

AudioFileFormat = Literal["wav", "flac"]
CODECS: dict[AudioFileFormat, str] = {"wav": "pcm_s16le", "flac": "flac"}
REPRODUCIBLE = {"fflags": "+bitexact"}  # FFmpeg's version stays out of the headers


def audio_file(audio: np.ndarray, file_format: AudioFileFormat) -> bytes:
    """The file of `audio`, int16 [samples], mono, 24 kHz; both formats keep every sample as it is."""
    file = BytesIO()
    with av.open(file, "w", format=file_format, container_options=REPRODUCIBLE) as container:
        stream = container.add_stream(CODECS[file_format], rate=SAMPLE_RATE, layout="mono")
        if len(audio):
            frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
