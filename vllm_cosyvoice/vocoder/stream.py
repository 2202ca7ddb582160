"""Streaming vocoder: converts a growing mel to audio pieces that join to the one-shot result."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vllm_cosyvoice.config import MEL_BINS, SAMPLES_PER_FRAME
from vllm_cosyvoice.vocoder.source import NOISE_SAMPLES, SEED_STRIDE, Source
from vllm_cosyvoice.vocoder.time_stretch import stretch, stretched_frames
from vllm_cosyvoice.vocoder.torch.causal_vocoder import CausalVocoder
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder, VocoderRow

HOLD_BACK = max(Vocoder.hold_back, CausalVocoder.hold_back)  # frames: what a first hop has to exceed
LONGEST_WINDOW = 4095  # frames per call, which bounds its memory


class Window(NamedTuple):
    """The frames that a call computes, [start, stop). The output is the frames [spoken, end)."""

    start: int
    stop: int
    end: int


class AnyVocoder(Protocol):
    """A `Vocoder`, a `CausalVocoder`, or a `PackedVocoder` of either."""

    @property
    def source(self) -> Source:
        """What has the noise, and the harmonics whose phases a stream carries."""
        ...

    @property
    def context(self) -> int:
        """How many frames before those spoken a window has to begin."""
        ...

    @property
    def hold_back(self) -> int:
        """How many frames at the end of the mel wait for more mel."""
        ...

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls: the indices of the rows for each call, given their `lengths` in frames."""
        ...

    def __call__(self, rows: Sequence[VocoderRow], /) -> tuple[list[Tensor], Tensor]:
        """See `Vocoder.forward`."""
        ...


class VocoderStream:
    """The vocoder's state in one utterance."""

    def __init__(self, vocoder: AnyVocoder, speed: float = 1.0, seed: int = 0) -> None:
        device = vocoder.source.noise.device
        self.speed, self.seed = speed, seed
        self.context, self.hold_back = vocoder.context, vocoder.hold_back
        self.mel = torch.zeros(0, MEL_BINS, device=device)
        self.spoken = 0  # frames whose audio has been returned
        self.phase = torch.zeros(vocoder.source.harmonics, dtype=torch.float64, device=device)  # before frame `spoken`

    def push(self, mel: Tensor) -> None:
        """Append mel [frames, 80], at speed 1."""
        self.mel = torch.cat([self.mel, mel])

    def window(self, *, last: bool) -> Window:
        """The window that can be spoken now. If `last`, no more mel will come and nothing is held back."""
        stop = stretched_frames(len(self.mel), self.speed, last=last)
        end = stop if last else max(self.spoken, stop - self.hold_back)
        return Window(max(0, self.spoken - self.context), stop, end)

    def part(self, window: Window) -> Window:
        """The first part of `window`, up to the limit of one call."""
        start = max(0, self.spoken - self.context)
        if window.stop - start <= LONGEST_WINDOW:
            return Window(start, window.stop, window.end)
        stop = start + LONGEST_WINDOW
        return Window(start, stop, min(stop - self.hold_back, window.end))

    def row(self, window: Window) -> VocoderRow:
        """The vocoder's input for `window`."""
        return VocoderRow(
            mel=stretch(self.mel, self.speed, window.start, window.stop),
            phase=self.phase,
            at=self.spoken - window.start,
            end=window.end - window.start,
            noise_start=self.seed * SEED_STRIDE % NOISE_SAMPLES + window.start * SAMPLES_PER_FRAME,
        )


def speak(vocoder: AnyVocoder, streams: Sequence[VocoderStream], windows: Sequence[Window]) -> list[Tensor]:
    """Compute the audio of each stream's window, float32 [480 · (end - spoken)], in one call, and advance the streams.

    Windows longer than `LONGEST_WINDOW` take several calls.
    """
    pieces: list[list[Tensor]] = [[] for _ in streams]
    pending = list(range(len(streams)))
    while pending:
        parts = [streams[index].part(windows[index]) for index in pending]
        rows = [streams[index].row(part) for index, part in zip(pending, parts, strict=True)]
        for index, part, audio, phase in zip(pending, parts, *vocoder(rows), strict=True):
            pieces[index].append(audio)
            streams[index].spoken, streams[index].phase = part.end, phase
        pending = [index for index in pending if streams[index].spoken < windows[index].end]
    return [audio[0] if len(audio) == 1 else torch.cat(audio) for audio in pieces]
