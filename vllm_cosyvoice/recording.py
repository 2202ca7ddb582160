"""Voices as plain data: recordings sent by callers, encoded voices, and entries of the voice store."""

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np

from vllm_cosyvoice.config import MEL_BINS, SPEAKER_DIM


class Recording(msgspec.Struct, frozen=True, tag=True):
    """A speaker's recording: a file of any audio format and its transcript. Without one, speech is cross-lingual."""

    data: bytes
    transcript: str = ""

    def __repr__(self) -> str:
        """Show the recording without the file's content."""
        return f"Recording({len(self.data)} bytes, {self.transcript!r})"


@dataclass(frozen=True)
class StoredVoice:
    """A voice that can be requested by name."""

    name: str
    created_at: int  # seconds since 1970


class Voice(msgspec.Struct, frozen=True, eq=False, tag=True):
    """The conditions for speech. Most preset speakers have an embedding, but no tokens and no mel."""

    transcript: str  # of the recording; '' if unknown
    speech_tokens: np.ndarray  # int32 [n], 25 per second
    mel: np.ndarray  # float32 [2n, 80], natural log
    embedding: np.ndarray  # float32 [192], of any norm: the flow normalises it
    key: str  # equal for equal recordings with equal transcripts

    @classmethod
    def preset(cls, name: str, embedding: np.ndarray) -> "Voice":
        """Create the preset speaker `name` from `embedding`, [192] or [1, 192]. Raises ValueError for another size."""
        if embedding.size != SPEAKER_DIM:
            raise ValueError(
                f"The embedding of the preset speaker {name!r} has shape {embedding.shape}: it needs {SPEAKER_DIM} "
                "numbers."
            )
        vector = np.ascontiguousarray(embedding, dtype=np.float32).reshape(SPEAKER_DIM)
        return cls(
            transcript="",
            speech_tokens=np.empty(0, np.int32),
            mel=np.empty((0, MEL_BINS), np.float32),
            embedding=vector,
            key=_digest(b"preset", name.encode(), vector.tobytes()),
        )


def voice_key(samples: np.ndarray, sample_rate: int, transcript: str) -> str:
    """Compute the key of a voice from `samples` (float32 mono) and `transcript`, without encoding it."""
    return _digest(b"recording", str(sample_rate).encode(), transcript.encode(), np.float32(samples).tobytes())


def registered_key(recording: str, transcript: str) -> str:
    """Compute the key of a registered voice from the digest of its recording's file."""
    return _digest(b"registered", recording.encode(), transcript.encode())


def saved_key(preset: str, transcript: str, speech_tokens: np.ndarray, mel: np.ndarray) -> str:
    """Compute the key of a preset speaker saved with a recording's features, from its key without them (`preset`)."""
    return _digest(b"saved", preset.encode(), transcript.encode(), speech_tokens.tobytes(), mel.tobytes())


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
