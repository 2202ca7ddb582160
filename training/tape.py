"""Speech as a tape at another speed plays it, so that pitch, formants and tempo all move.

A synthetic voice's pitch hardly moves by itself, and few voices have few pitches.
"""

from functools import cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from vllm_cosyvoice.voice.features import PROMPT_MARGIN, mel_within

SPEEDS = (0.8, 0.85, 0.9, 0.95, 1.05, 1.1, 1.15, 1.2, 1.25)
LED_IN = 2  # frames played before those that are kept


def frames_for(frames: int, speed: float) -> int:
    """How many frames of speech `play` needs for so many of its own."""
    return int((frames + 2 * LED_IN) * speed) + 1


def play(audio: Tensor, f0: Tensor, speed: float, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `frames` behind the lead-in, as the vocoder is trained on them.

    Args:
        audio: [rows, samples] at 24 kHz, as much as `frames_for` says.
        f0: Hz, [rows, samples / 480].
        speed: one of SPEEDS.

    Returns:
        mel [rows, frames, 80] as `prompt_mel` makes it, audio [rows, 480 · frames], f0 [rows, frames].
    """
    played = _resampler(speed, audio.device)(audio)
    start, end = SAMPLES_PER_FRAME * LED_IN, SAMPLES_PER_FRAME * (LED_IN + frames)
    mel = mel_within(played[:, start - PROMPT_MARGIN : end + PROMPT_MARGIN])
    middles = ((LED_IN + torch.arange(frames, device=audio.device) + 0.5) * speed).long()
    return mel, played[:, start:end], f0[:, middles] * speed


@cache
def _resampler(speed: float, device: torch.device) -> Resample:
    return Resample(round(SAMPLE_RATE * speed), SAMPLE_RATE).to(device)
