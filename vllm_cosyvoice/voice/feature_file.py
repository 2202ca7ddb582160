"""Reads and writes a voice's features as a safetensors file."""

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
    """Write the features of `voice` atomically."""
    write_whole(path, save({"speech_tokens": voice.speech_tokens, "mel": voice.mel, "embedding": voice.embedding}))


def read(path: Path) -> Features | None:
    """Read the features written by `write`; return None if the file is missing or invalid."""
    try:
        tensors = load(path.read_bytes())
        features = tensors["speech_tokens"], tensors["mel"], tensors["embedding"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        log.warning("%s can't be read (%s), so the voice is encoded again.", path, error)
        return None
    if not _is_valid(*features):
        log.warning("%s does not contain a voice's features, so the voice is encoded again.", path)
        return None
    return features


def _is_valid(tokens: np.ndarray, mel: np.ndarray, embedding: np.ndarray) -> bool:
    return (
        tokens.dtype == np.int32
        and mel.dtype == embedding.dtype == np.float32
        and (tokens.ndim, embedding.shape) == (1, (SPEAKER_DIM,))
        and mel.shape == (FRAMES_PER_TOKEN * len(tokens), MEL_BINS)
        and bool(((tokens >= 0) & (tokens < SPEECH_TOKENS)).all())
        and bool(np.isfinite(mel).all() and np.isfinite(embedding).all())
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: readers see all of it or nothing, even after a power failure."""
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
