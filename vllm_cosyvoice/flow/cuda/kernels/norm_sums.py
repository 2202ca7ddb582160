"""Norms whose statistics come from the kernel before: partial sums of each frame's channels and of their squares."""

import triton
import triton.language as tl


@triton.jit
def mean_and_scale(parts_of_sum, parts_of_squares, CHANNELS: tl.constexpr, eps):
    """The mean and the reciprocal standard deviation of each frame, [rows, 1], from its sums [rows, parts]."""
    mean = tl.sum(parts_of_sum, 1)[:, None] / CHANNELS
    variance = tl.maximum(tl.sum(parts_of_squares, 1)[:, None] / CHANNELS - mean * mean, 0.0)
    return mean, tl.rsqrt(variance + eps)


@triton.jit
def load_sums(sums, row, rows, PARTS: tl.constexpr):
    """Load the sums and the sums of squares of the frames `row`, each [rows, parts]."""
    place = sums + tl.minimum(row, rows - 1)[:, None] * (2 * PARTS) + 2 * tl.arange(0, PARTS)[None, :]
    return tl.load(place), tl.load(place + 1)


@triton.jit
def store_sums(sums, y, row, rows, part, PARTS: tl.constexpr):
    """Store the sums of the tile y [rows, columns], which is `part` of `PARTS`."""
    place = sums + (row * PARTS + part) * 2
    tl.store(place, tl.sum(y, 1), row < rows)
    tl.store(place + 1, tl.sum(y * y, 1), row < rows)
