"""Speech faster or slower at the same pitch: mel with its time axis stretched."""

import math

import torch
from torch import Tensor


def stretched_frames(frames: int, speed: float, *, last: bool) -> int:
    """How many frames at `speed` the first `frames` at speed 1 make; without `last`, only those no later one changes.

    Frame i is read at (i + 1/2) · speed - 1/2, between two frames. (The reference first rounds the length, then uses
    the ratio of lengths for the scale, which cannot be known before the end; the difference is below one frame.)
    """
    total = int(frames / speed)
    if last:
        return max(total, min(frames, 1))
    return max(0, min(total, math.floor((frames - 0.5) / speed - 0.5) + 1))


def stretch(mel: Tensor, speed: float, start: int, stop: int) -> Tensor:
    """Frames `start` … `stop` - 1 of `mel` [frames, 80] at `speed`, [stop - start, 80]."""
    if speed == 1:
        return mel[start:stop]
    positions = (torch.arange(start, stop, dtype=torch.float64, device=mel.device) + 0.5) * speed - 0.5
    positions = positions.clamp(0, len(mel) - 1)
    left = positions.long()
    right = (left + 1).clamp(max=len(mel) - 1)
    return torch.lerp(mel[left], mel[right], (positions - left).float()[:, None])
