"""Time grid of the Euler steps from noise to mel."""

import torch

STEPS = 10


def time_grid() -> list[float]:
    """`STEPS` + 1 times from 0 (noise) to 1 (mel), on CosyVoice's cosine schedule: 1 - cos(π/2 · step / steps).

    They are rounded to float32 where the released code rounds. The networks read 1000 times the time, so that other
    rounding would change the mel by 1e-5.
    """
    times: list[float] = (1 - torch.cos(torch.linspace(0, 1, STEPS + 1) * (torch.pi / 2))).tolist()
    return times
