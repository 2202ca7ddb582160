"""Voices as plain data: what callers send to have one made, and what the store says of those it has."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recording:
    """A speaker's recording: a file of any audio format, and what it says; without that, speech is cross-lingual."""

    data: bytes = field(repr=False)
    transcript: str = ""


@dataclass(frozen=True)
class StoredVoice:
    """A voice that can be asked for by its name."""

    name: str
    created_at: int  # seconds since 1970
