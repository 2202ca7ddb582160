"""Linear layers and causal convolutions, fused with the norm before them and the activation and residual after them."""

from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from vllm_cosyvoice.flow.cuda.kernels.launch import Shape, let_next_in, wait_for_inputs
from vllm_cosyvoice.gpu.kernel_launch import launch

SQRT_HALF = tl.constexpr(0.7071067811865476)
GELU_SLOPE = tl.constexpr(-1.5957691216057308)  # -2·√(2/π)
GELU_CURVE = tl.constexpr(0.044715)


class Layer(NamedTuple):
    """A linear layer, or a causal convolution with its taps side by side, oldest first."""

    weight: Tensor  # [outputs, taps · inputs]
    bias: Tensor  # [outputs] float32
    column_sums: Tensor | None = None  # [outputs] float32, sums of `weight` over the inputs; only after a norm


@triton.jit
def _gelu(x, EXACT: tl.constexpr):
    """GELU; if not exact, with tanh instead of the error function (Hendrycks and Gimpel 2016).

    The error is up to 5e-4, a tenth of the rounding error of bfloat16, and it takes a third of the time.
    """
    if EXACT:
        return 0.5 * x * (1 + tl.erf(x * SQRT_HALF))
    return x / (1 + tl.exp(x * (x * x * GELU_CURVE + 1) * GELU_SLOPE))


@triton.jit
def _linear(
    x, positions, weight, bias, column_sums, sums, residual, out, out_sums, rows, half, eps,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, TAPS: tl.constexpr, NEWEST_FROM: tl.constexpr, PARTS: tl.constexpr,
    ACTIVATION: tl.constexpr, RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    # A frame and the frames before it are adjacent in memory, so a convolution reads them as one long row of inputs.
    first_tap = tl.minimum(tl.maximum(row, TAPS - 1), rows - 1) - (TAPS - 1)
    x_row = x + first_tap[:, None] * INPUTS + depth[None, :]
    w_column = weight + column[None, :] * (TAPS * INPUTS) + depth[:, None]
    start = 0
    if NEWEST_FROM < OUTPUTS:
        start = tl.where(tl.program_id(1) * COLUMNS >= NEWEST_FROM, (TAPS - 1) * INPUTS, 0)
    inside = row[:, None] < rows
    place = row[:, None] * OUTPUTS + column[None, :]
    # Inputs of the epilogue are loaded early: constants while earlier kernels still run, the rest during the product.
    bias_values = tl.load(bias + column)[None, :]
    if PARTS > 0:
        column_sum_values = tl.load(column_sums + column)[None, :]
    if RESIDUAL or TAPS > 1:
        in_row = (tl.load(positions + row % half, row < rows, -1) >= 0)[:, None]
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    if PARTS > 0:
        part = tl.arange(0, PARTS)
        sums_place = sums + tl.minimum(row, rows - 1)[:, None] * (2 * PARTS) + 2 * part[None, :]
        parts_of_sum = tl.load(sums_place)
        parts_of_squares = tl.load(sums_place + 1)
    if RESIDUAL:
        residual_values = tl.load(residual + place, inside, 0.0)
    y = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(start, TAPS * INPUTS, DEPTH):
        y = tl.dot(tl.load(x_row + step), tl.load(w_column + step), y, input_precision="ieee")

    if PARTS > 0:
        # norm(x) @ weight, from the product with the raw x: subtract the mean's share, then scale.
        mean = tl.sum(parts_of_sum, 1)[:, None] / INPUTS
        variance = tl.maximum(tl.sum(parts_of_squares, 1)[:, None] / INPUTS - mean * mean, 0.0)
        y = (y - mean * column_sum_values) * tl.rsqrt(variance + eps)
    y += bias_values
    if ACTIVATION == "gelu":
        y = _gelu(y, out.dtype.element_ty == tl.float32)
    if ACTIVATION == "silu":
        y = y / (1 + tl.exp(-y))
    if RESIDUAL:
        y += residual_values.to(tl.float32)
    if RESIDUAL or TAPS > 1:  # only outputs that a convolution may read next must be zero between rows
        y = tl.where(in_row, y, 0.0)
    tl.store(out + place, y.to(out.dtype.element_ty), inside)
    if RESIDUAL:
        parts: tl.constexpr = OUTPUTS // COLUMNS
        own_sums = out_sums + (row * parts + tl.program_id(1)) * 2
        tl.store(own_sums, tl.sum(y, 1), row < rows)
        tl.store(own_sums + 1, tl.sum(y * y, 1), row < rows)


def linear(
    x: Tensor,
    positions: Tensor,
    layer: Layer,
    shape: Shape,
    *,
    sums: Tensor | None = None,
    activation: str = "",
    residual: Tensor | None = None,
    newest_from: int | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Compute activation(norm(x) @ weightᵀ + bias) + residual: [frames, inputs] to [frames, outputs].

    A layer with more inputs than x has channels is a causal convolution, which also sees earlier frames. The output of
    a convolution, and any output with a residual, is zero between rows, as the next convolution requires.

    Args:
        positions: int32, each frame's position in its row, or -1; shorter than x if x holds the same rows several
            times.
        sums: float32 [frames, parts, 2], for a layer after a norm: partial sums of each frame's channels and of their
            squares. The norm's weight and bias are folded into the layer's.
        activation: "gelu", "silu" or none.
        newest_from: outputs from this index on have weights for the newest tap only.

    Returns:
        The output, and its sums if a residual was added (a norm follows then), else an empty tensor.
    """
    rows, inputs = x.shape
    outputs = len(layer.bias)
    columns = gcd(shape.columns, outputs)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    out_sums = torch.empty(rows if residual is not None else 0, outputs // columns, 2, device=x.device)
    launch(
        _linear, (cdiv(rows, shape.rows), outputs // columns),
        x, positions, layer.weight, layer.bias, layer.bias if layer.column_sums is None else layer.column_sums,
        layer.bias if sums is None else sums, x if residual is None else residual, out, out_sums,
        rows, len(positions), eps, inputs, outputs, layer.weight.shape[1] // inputs,
        outputs if newest_from is None else newest_from, 0 if sums is None else sums.shape[1], activation,
        residual is not None, shape.rows, columns, gcd(shape.depth, inputs), **shape.options,
    )  # fmt: skip
    return out, out_sums


def sums_of(x: Tensor) -> Tensor:
    """Compute the `sums` of x [frames, channels], in one part."""
    x = x.float()
    return torch.stack([x.sum(1), x.square().sum(1)], dim=-1)[:, None]
