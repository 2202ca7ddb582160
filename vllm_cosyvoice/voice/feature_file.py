"""A voice's features in a safetensors file."""

import logging
import os
import uuid
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, SPEAKER_DIM
from vllm_cosyvoice.recording import Voice
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

log = logging.getLogger(__name__)

Features = tuple[np.ndarray, np.ndarray, np.ndarray]  # speech tokens, mel and embedding, shaped as in a Voice


def write(path: Path, voice: Voice) -> None:
    """Write the features of `voice`; the file appears whole."""
    write_whole(path, save({"speech_tokens": voice.speech_tokens, "mel": voice.mel, "embedding": voice.embedding}))


def read(path: Path) -> Features | None:
    """What `write` wrote; None when there is no such file, or it holds anything else."""
    try:
        tensors = load(path.read_bytes())
        features = tensors["speech_tokens"], tensors["mel"], tensors["embedding"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        log.warning("%s can't be read (%s), so the voice is encoded anew.", path, error)
        return None
    if not _sound(*features):
        log.warning("%s does not hold a voice's features, so the voice is encoded anew.", path)
        return None
    return features


def _sound(tokens: np.ndarray, mel: np.ndarray, embedding: np.ndarray) -> bool:
    return (
        tokens.dtype == np.int32
        and mel.dtype == embedding.dtype == np.float32
        and (tokens.ndim, embedding.shape) == (1, (SPEAKER_DIM,))
        and mel.shape == (FRAMES_PER_TOKEN * len(tokens), MEL_BINS)
        and bool(((tokens >= 0) & (tokens < SPEECH_TOKENS)).all())
        and bool(np.isfinite(mel).all() and np.isfinite(embedding).all())
    )


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: whoever looks sees all of it or nothing, also after a power cut."""
    unfinished = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
