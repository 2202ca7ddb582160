"""Weights that anyone can rebuild: each tensor is a function of its name, its shape and a salt.

The golden numbers in `tests/golden_data` were computed with these weights, so the tests carry numbers, not weights.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import torch

# Matrices of CosyVoice3's estimator that are called embeddings, but project.
PROJECTIONS = ("decoder.estimator.time_embed.", "decoder.estimator.input_embed.")


def seeded_tensor(name: str, shape: Sequence[int], salt: str = "") -> torch.Tensor:
    """The float32 tensor called `name`: normal draws, scaled by what kind of tensor the name says it is."""
    if name.endswith("rotary_embed.inv_freq"):  # a constant of the model, not a weight
        return 10_000 ** (-torch.arange(shape[0]) / shape[0])
    generator = torch.Generator().manual_seed(zlib.crc32(f"{salt}{name}".encode()))
    draws = torch.randn(tuple(shape), generator=generator)
    vector = len(shape) == 1
    if name.endswith("parametrizations.weight.original0"):
        return torch.ones(tuple(shape))
    if name.endswith("alpha") or (vector and name.endswith("weight")):
        return 1 + 0.1 * draws
    if name.endswith(("pos_bias_u", "pos_bias_v")):
        return 0.1 * draws
    if vector:
        return 0.05 * draws
    if "embed" in name and not name.startswith(PROJECTIONS):
        return 0.5 * draws
    return draws / math.sqrt(math.prod(shape[1:]))


def seeded_state(shapes: Mapping[str, Sequence[int]], salt: str = "") -> dict[str, torch.Tensor]:
    """A whole state dict for `shapes`, which maps each tensor's name to its shape."""
    return {name: seeded_tensor(name, shape, salt) for name, shape in shapes.items()}
