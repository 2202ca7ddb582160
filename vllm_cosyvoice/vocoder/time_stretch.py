"""Changes the speed of speech at constant pitch by stretching the time axis of the mel."""

import math

import torch
from torch import Tensor


def stretched_frames(frames: int, speed: float, *, last: bool) -> int:
    """The number of frames at `speed` that the first `frames` at speed 1 give.

    Without `last`, it counts only frames that later input can't change. Frame i is interpolated at
    (i + 1/2) · speed - 1/2. (The reference rounds the length first and takes the ratio of lengths as the scale, which
    is unknown before the end; the difference is below one frame.)
    """
    total = int(frames / speed)
    if last:
        return max(total, min(frames, 1))
    return max(0, min(total, math.floor((frames - 0.5) / speed - 0.5) + 1))


def stretch(mel: Tensor, speed: float, start: int, stop: int) -> Tensor:
    """Compute the frames `start` … `stop` - 1 of `mel` [frames, 80] at `speed`: [stop - start, 80]."""
    if speed == 1:
        return mel[start:stop]
    positions = (torch.arange(start, stop, dtype=torch.float64, device=mel.device) + 0.5) * speed - 0.5
    positions = positions.clamp(0, len(mel) - 1)
    left = positions.long()
    right = (left + 1).clamp(max=len(mel) - 1)
    return torch.lerp(mel[left], mel[right], (positions - left).float()[:, None])
