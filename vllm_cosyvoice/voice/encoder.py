"""Encodes prompt audio as a Voice."""

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
Input = tuple[str, Sequence[object]]  # type and shape; a name or None stands for any size
FEATURES_VERSION = 2  # increment this when a code change alters the features of the same networks


class VoiceEncoder:
    """A model's speech tokenizer and speaker encoder. Its methods are thread-safe."""

    def __init__(self, model: ModelDirectory, threads: int | None = None) -> None:
        """Load both networks. Each call uses `threads` threads (default: the number of cores, at most 4).

        Raises CheckpointError for a file that does not contain the expected network.
        """
        self._family = model.family
        threads = threads or min(4, os.cpu_count() or 1)
        self.key = _content_key(model.speech_tokenizer, model.speaker_encoder)  # equal keys mean equal features
        spectrogram, length = ("tensor(float)", [1, WHISPER_BINS, None]), ("tensor(int32)", [1])
        self._speech_tokenizer = _session(model.speech_tokenizer, threads, (CUDA, CPU), [spectrogram, length])
        # It is small, and a GPU would tune it again for each new input length.
        features = ("tensor(float)", [1, None, SPEAKER_BINS])
        self._speaker_encoder = _session(model.speaker_encoder, threads, (CPU,), [features])

    def encode(self, samples: np.ndarray, sample_rate: int, transcript: str) -> Voice:
        """Encode a recording as a voice.

        `samples` are float32 mono [n] in [−1, 1], 1 to 30 s without the silence at the ends. Raises AudioError, see
        `prompt_part`.
        """
        transcript = transcript.strip()
        part = prompt_part(samples, sample_rate, transcript)
        wave = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))
        prompt_wave = resample(wave, sample_rate, PROMPT_SAMPLE_RATE)
        tokens = self._tokenize(prompt_wave)
        mel = prompt_mel(resample(wave, sample_rate, SAMPLE_RATE)).numpy()
        length = min(len(mel) // FRAMES_PER_TOKEN, len(tokens))
        return Voice(
            transcript=transcript,
            speech_tokens=tokens[:length],
            mel=np.ascontiguousarray(mel[: FRAMES_PER_TOKEN * length]),
            embedding=self._embed(prompt_wave),
            key=voice_key(samples, sample_rate, transcript),
        )

    def speech_tokens(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Compute the speech tokens of a whole recording, int32 [n], 25 per second.

        `samples` are float32 mono [n] in [−1, 1], 1 to 30 s. Raises AudioError.
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
                f"The speech tokenizer returned tokens outside 0 … {SPEECH_TOKENS - 1}, or none: "
                f"{self._family.speech_tokenizer} is not {self._family.name}'s; download the model again."
            )
        return tokens.astype(np.int32)

    def _embed(self, wave: torch.Tensor) -> np.ndarray:
        embedding = _run(self._speaker_encoder, speaker_fbank(wave)[None].numpy()).reshape(-1)
        if embedding.size != SPEAKER_DIM or not np.isfinite(embedding).all():
            raise CheckpointError(
                f"The speaker encoder returned {embedding.size} numbers, not {SPEAKER_DIM} finite ones: campplus.onnx "
                f"is not {self._family.name}'s; download the model again."
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
    import onnxruntime  # late: importing it starts a thread, which a process forked afterwards would lack

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads should not use a core
    available = onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[provider for provider in providers if provider in available]
        )
    except Exception as error:  # onnxruntime's exceptions have no other common base class
        reason = " ".join(str(error).split())
        message = f"{path} is cut short or not an ONNX model ({reason}); download it again"
        raise CheckpointError(message) from error
    actual = [(node.type, node.shape) for node in session.get_inputs()]
    if len(actual) != len(inputs) or not all(map(_fits, actual, inputs)):
        description = ", ".join(f"{node.name} {node.type} {node.shape}" for node in session.get_inputs())
        raise CheckpointError(f"{path} has the inputs {description}, so it is another model's; download the file again")
    return session


def _fits(actual: Input, expected: Input) -> bool:
    """Whether an input has the expected type and shape. A dimension that is not fixed matches any size."""
    (kind, shape), (expected_kind, expected_shape) = actual, expected
    return (kind, len(shape)) == (expected_kind, len(expected_shape)) and all(
        size == expected_size or expected_size is None or not isinstance(size, int)
        for size, expected_size in zip(shape, expected_shape, strict=True)
    )


def _run(session: "onnxruntime.InferenceSession", *inputs: np.ndarray) -> np.ndarray:
    names = [node.name for node in session.get_inputs()]
    output: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    return output
