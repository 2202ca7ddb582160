"""Measurements of the audio sent to clients, taken where it leaves the engine."""

import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass

from server.observe.metrics import Histogram, labelled
from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.request import SpeechRequest

LONGEST_NAME = 64  # characters of a voice's name that are logged
BYTES_PER_SECOND = 2 * SAMPLE_RATE
SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
LONGER_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
FACTORS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)
UNDERRUNS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(eq=False)
class Account:
    """What the log says about one request; the code that serves the request fills it in."""

    voice: str | None = None
    characters: int = 0
    audio_seconds: float = 0.0
    first_audio_seconds: float | None = None
    underrun_seconds: float = 0.0
    failure: str | None = None  # after the status was sent


account: ContextVar[Account | None] = ContextVar("account", default=None)  # of the request that this task serves


def note(request: SpeechRequest) -> None:
    """Record what `request` asks of the engine, for the log."""
    if entry := account.get():
        entry.characters += len(request.text or "")
        entry.voice = request.voice[:LONGEST_NAME] if isinstance(request.voice, str) else "a recording"


@dataclass(eq=False)
class _Listener:
    """A player that starts with the first piece and stalls when the next one is late. Times in seconds."""

    started: float
    first_audio: float | None = None
    played: float = 0.0
    silence: float = 0.0

    def take(self, seconds: float) -> None:
        elapsed = time.monotonic() - self.started
        if self.first_audio is None:
            self.first_audio = elapsed
        self.silence += max(0.0, elapsed - (self.first_audio + self.played + self.silence))
        self.played += seconds


class Speeches:
    """Counters and histograms of all speech of this process."""

    def __init__(self) -> None:
        self._audio_seconds = 0.0
        self._first_audio = Histogram("first_audio_seconds", SECONDS)
        self._duration = Histogram("speech_seconds", LONGER_SECONDS)
        self._factor = Histogram("real_time_factor", FACTORS)
        self._underrun = Histogram("underrun_seconds", UNDERRUNS)

    def numbers(self) -> dict[str, float]:
        """For /metrics."""
        numbers: dict[str, float] = {"audio_seconds_total": self._audio_seconds}
        for histogram in (self._first_audio, self._duration, self._factor, self._underrun):
            numbers |= histogram.numbers()
        return numbers

    async def measure(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield `pieces` and measure them. A client that reads slower than real time counts as hearing silence."""
        listener = _Listener(time.monotonic())
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    listener.take(len(piece) / BYTES_PER_SECOND)
                    self._audio_seconds += len(piece) / BYTES_PER_SECOND
                    yield piece
            if listener.first_audio is not None:
                duration = time.monotonic() - listener.started
                self._duration.observe(duration)
                self._factor.observe(duration / listener.played)
        finally:
            if listener.first_audio is not None:
                self._first_audio.observe(listener.first_audio)
                self._underrun.observe(listener.silence)
                if entry := account.get():
                    if entry.first_audio_seconds is None:
                        entry.first_audio_seconds = listener.first_audio
                    entry.audio_seconds += listener.played
                    entry.underrun_seconds += listener.silence


class Answers:
    """How requests ended, for /metrics."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._retries = 0

    def count(self, route: str, status: int, outcome: str, *, retried: bool) -> None:
        """Count one answer."""
        self._counts[labelled("answers_total", route=route, status=status, outcome=outcome)] += 1
        self._retries += retried

    def numbers(self) -> dict[str, float]:
        """For /metrics."""
        return {**self._counts, "retries_total": self._retries}
