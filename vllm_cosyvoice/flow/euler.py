"""Time grid of the Euler steps from noise to mel."""

import math

STEPS = 10


def time_grid() -> list[float]:
    """`STEPS` + 1 times from 0 (noise) to 1 (mel), on CosyVoice's cosine schedule: 1 - cos(π/2 · step / steps)."""
    return [1 - math.cos(step / STEPS * math.pi / 2) for step in range(STEPS + 1)]
