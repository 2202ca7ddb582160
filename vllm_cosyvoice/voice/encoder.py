"""Prompt audio → Voice."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vllm_cosyvoice.checkpoint import CheckpointError, ModelDirectory
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, PROMPT_SAMPLE_RATE, SAMPLE_RATE, SPEAKER_DIM
from vllm_cosyvoice.recording import Voice, voice_key
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.voice.audio import check_audio, resample
from vllm_cosyvoice.voice.features import SPEAKER_BINS, WHISPER_BINS, prompt_mel, speaker_fbank, whisper_log_mel
from vllm_cosyvoice.voice.prompt import prompt_part

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
Input = tuple[str, Sequence[object]]  # type, and shape: a name or None where any size will do
FEATURES_VERSION = 2  # to be raised when this code makes other features of the same networks


class VoiceEncoder:
    """A model's speech tokenizer and speaker encoder. Its methods may run in several threads at once."""

    def __init__(self, model: ModelDirectory, threads: int | None = None) -> None:
        """Load both networks; `threads` are used by each call (default: the machine's cores, at most 4).

        Raises CheckpointError for a file that is no such network.
        """
        threads = threads or min(4, os.cpu_count() or 1)
        self.key = _content_key(model.speech_tokenizer, model.speaker_encoder)  # equal for what makes equal features
        spectrogram, length = ("tensor(float)", [1, WHISPER_BINS, None]), ("tensor(int32)", [1])
        self._speech_tokenizer = _session(model.speech_tokenizer, threads, (CUDA, CPU), [spectrogram, length])
        # Small, and its input length changes with every recording: on a GPU it would tune anew each time.
        features = ("tensor(float)", [1, None, SPEAKER_BINS])
        self._speaker_encoder = _session(model.speaker_encoder, threads, (CPU,), [features])

    def encode(self, samples: np.ndarray, sample_rate: int, transcript: str) -> Voice:
        """The voice of a recording: float32 mono `samples` [n] in [−1, 1], 1 to 30 s without the silence at its ends.

        Raises AudioError, see `prompt_part`.
        """
        transcript = transcript.strip()
        part = prompt_part(samples, sample_rate, transcript)
        wave = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))
        heard = resample(wave, sample_rate, PROMPT_SAMPLE_RATE)
        tokens = self._tokenize(heard)
        mel = prompt_mel(resample(wave, sample_rate, SAMPLE_RATE)).numpy()
        length = min(len(mel) // FRAMES_PER_TOKEN, len(tokens))
        return Voice(
            transcript=transcript,
            speech_tokens=tokens[:length],
            mel=np.ascontiguousarray(mel[: FRAMES_PER_TOKEN * length]),
            embedding=self._embed(heard),
            key=voice_key(samples, sample_rate, transcript),
        )

    def speech_tokens(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Speech tokens of a whole recording, int32 [n], 25 a second: float32 mono `samples` [n] in [−1, 1], 1 to 30 s.

        Raises AudioError.
        """
        check_audio(samples, sample_rate)
        wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return self._tokenize(resample(wave, sample_rate, PROMPT_SAMPLE_RATE))

    def _tokenize(self, wave: torch.Tensor) -> np.ndarray:
        log_mel = whisper_log_mel(wave)[None].numpy()
        length = np.array([log_mel.shape[2]], dtype=np.int32)
        tokens = _run(self._speech_tokenizer, log_mel, length).reshape(-1)
        if not tokens.size or tokens.min() < 0 or tokens.max() >= SPEECH_TOKENS:
            raise CheckpointError(
                f"The speech tokenizer gave tokens outside 0 … {SPEECH_TOKENS - 1}, or none: "
                "speech_tokenizer_v2.onnx is not CosyVoice2's; download the model again."
            )
        return tokens.astype(np.int32)

    def _embed(self, wave: torch.Tensor) -> np.ndarray:
        embedding = _run(self._speaker_encoder, speaker_fbank(wave)[None].numpy()).reshape(-1)
        if embedding.size != SPEAKER_DIM or not np.isfinite(embedding).all():
            raise CheckpointError(
                f"The speaker encoder gave {embedding.size} numbers, not {SPEAKER_DIM} finite ones: campplus.onnx is "
                "not CosyVoice2's; download the model again."
            )
        return embedding.astype(np.float32)


def _content_key(*networks: Path) -> str:
    digest = hashlib.blake2b(str(FEATURES_VERSION).encode(), digest_size=8)
    for network in networks:
        with network.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _session(
    path: Path, threads: int, providers: tuple[str, ...], inputs: Sequence[Input]
) -> "onnxruntime.InferenceSession":
    import onnxruntime  # late: its import starts a thread, which a process that is forked afterwards would lack

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    available = onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[provider for provider in providers if provider in available]
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class but this
        reason = " ".join(str(error).split())
        message = f"{path} is cut short or not an ONNX model ({reason}); download it again"
        raise CheckpointError(message) from error
    found = [(node.type, node.shape) for node in session.get_inputs()]
    if len(found) != len(inputs) or not all(map(_fits, found, inputs)):
        described = ", ".join(f"{node.name} {node.type} {node.shape}" for node in session.get_inputs())
        raise CheckpointError(f"{path} takes {described}, so it is another model's; download the file again")
    return session


def _fits(found: Input, wanted: Input) -> bool:
    """Whether an input is of the wanted type and shape; a size that is not fixed takes any."""
    (kind, shape), (wanted_kind, wanted_shape) = found, wanted
    return (kind, len(shape)) == (wanted_kind, len(wanted_shape)) and all(
        size == wanted_size or wanted_size is None or not isinstance(size, int)
        for size, wanted_size in zip(shape, wanted_shape, strict=True)
    )


def _run(session: "onnxruntime.InferenceSession", *inputs: np.ndarray) -> np.ndarray:
    names = [node.name for node in session.get_inputs()]
    output: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    return output
