"""Linear layers and causal convolutions, fused with the norm before and the activation or residual after them."""

from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton import cdiv

from vllm_cosyvoice.flow.cuda.kernels.norm_sums import load_sums, mean_and_scale, store_sums
from vllm_cosyvoice.flow.cuda.kernels.remembered import Tail, exchanged
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs

SQRT_HALF = tl.constexpr(0.7071067811865476)
GELU_SLOPE = tl.constexpr(-1.5957691216057308)  # -2·√(2/π)
GELU_CURVE = tl.constexpr(0.044715)


class Layer(NamedTuple):
    """A linear layer, or a causal convolution with its taps side by side, oldest first."""

    weight: Tensor  # [outputs, taps · inputs]
    bias: Tensor  # [outputs] float32
    column_sums: Tensor | None = None  # [outputs] float32, sums of `weight` over the inputs; only after a norm


class Modulation(NamedTuple):
    """What the time gives to a residual branch and to the norm that follows: [channels] float32 each."""

    gate: Tensor  # of the branch
    norm_weight: Tensor


class Modulated(NamedTuple):
    """Frames and what the next layer needs of them."""

    x: Tensor  # [frames, channels]
    operand: Tensor  # x times the weight of the norm that follows, which the next layer multiplies
    sums: Tensor  # of x, float32 [frames, parts, 2], see `linear`


@triton.jit
def _gelu(x, EXACT: tl.constexpr):
    """GELU; if not exact, with tanh instead of the error function (Hendrycks and Gimpel 2016).

    The error is up to 5e-4, a tenth of the rounding error of bfloat16, and it takes a third of the time.
    """
    if EXACT:
        return 0.5 * x * (1 + tl.erf(x * SQRT_HALF))
    return x / (1 + tl.exp(x * (x * x * GELU_CURVE + 1) * GELU_SLOPE))


@triton.jit
def _rotated(y, position, first, rotation, ROTATED: tl.constexpr, WIDTH: tl.constexpr):
    """Rotate those of the columns y [rows, columns], from `first` on, that belong to the first head."""
    columns: tl.constexpr = y.shape[1]
    pair = first % WIDTH // 2 + tl.arange(0, columns // 2)
    rotated = (position >= 0)[:, None] & (pair < ROTATED // 2)[None, :]
    turn = rotation + position[:, None] * ROTATED + 2 * pair[None, :]
    cos, sin = tl.load(turn, rotated, 1.0), tl.load(turn + 1, rotated, 0.0)
    even, odd = tl.split(tl.reshape(y, (y.shape[0], columns // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, odd * cos + even * sin), (y.shape[0], columns))


@triton.jit
def _linear(
    x, positions, weight, bias, column_sums, sums, rotation, residual, gate, norm_weight, tail_memory, tail_frames,
    out, operand, out_sums, rows, half, eps,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, TAPS: tl.constexpr, NEWEST_FROM: tl.constexpr, PARTS: tl.constexpr,
    ACTIVATION: tl.constexpr, ROTATED: tl.constexpr, RESIDUAL: tl.constexpr, MODULATED: tl.constexpr,
    TAILED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    if DEPTH > 0:
        depth = tl.arange(0, DEPTH)
        # A frame and the frames before it are adjacent in memory, so a convolution reads them as one long row of
        # inputs.
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
    if TAILED:
        tail = tl.load(tail_frames + row % half, row < rows, -1)
    if MODULATED:
        gate_values = tl.load(gate + column)[None, :]
        norm_weight_values = tl.load(norm_weight + column)[None, :]
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    if PARTS > 0:
        parts_of_sum, parts_of_squares = load_sums(sums, row, rows, PARTS)
    if RESIDUAL:
        residual_values = tl.load(residual + place, inside, 0.0)
    if DEPTH > 0:
        y = tl.zeros((ROWS, COLUMNS), tl.float32)
        for step in range(start, TAPS * INPUTS, DEPTH):
            y = tl.dot(tl.load(x_row + step), tl.load(w_column + step), y, input_precision="ieee")
    else:
        y = tl.load(x + place, inside, 0.0).to(tl.float32)

    if PARTS > 0:
        # norm(x) @ weight, from the product with the raw x: subtract the mean's share, then scale.
        mean, norm_scale = mean_and_scale(parts_of_sum, parts_of_squares, INPUTS, eps)
        y = (y - mean * column_sum_values) * norm_scale
    y += bias_values
    if ACTIVATION == "gelu":
        y = _gelu(y, out.dtype.element_ty == tl.float32)
    if ACTIVATION == "gelu_tanh":
        y = _gelu(y, False)
    if ACTIVATION == "silu":
        y = y / (1 + tl.exp(-y))
    if ROTATED > 0:
        first = tl.program_id(1) * COLUMNS
        width: tl.constexpr = OUTPUTS // 3
        if (first < 2 * width) & (first % width < ROTATED):
            y = _rotated(y, tl.load(positions + row % half, row < rows, -1), first, rotation, ROTATED, width)
    if MODULATED:
        y *= gate_values
    if RESIDUAL:
        y += residual_values.to(tl.float32)
    if RESIDUAL or TAPS > 1:  # only outputs that a convolution may read next must be zero between rows
        y = tl.where(in_row, y, 0.0)
    if TAILED:
        y = exchanged(y, in_row, 2 * tail + row // half, column, tail_memory, OUTPUTS)
    tl.store(out + place, y.to(out.dtype.element_ty), inside)
    if MODULATED:
        tl.store(operand + place, (y * norm_weight_values).to(operand.dtype.element_ty), inside)
    if RESIDUAL:
        store_sums(out_sums, y, row, rows, tl.program_id(1), OUTPUTS // COLUMNS)


def linear(
    x: Tensor,
    positions: Tensor,
    layer: Layer,
    shape: Shape,
    *,
    sums: Tensor | None = None,
    activation: str = "",
    rotation: Tensor | None = None,
    residual: Tensor | None = None,
    newest_from: int | None = None,
    tail: Tail | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Compute activation(norm(x) @ weightᵀ + bias) + residual: [frames, inputs] to [frames, outputs].

    A layer with more inputs than x has channels is a causal convolution, which also sees earlier frames. The output of
    a convolution, and any output with a residual, is zero between rows, as the next convolution requires.

    With a shape of depth 0, cuBLAS computes the product and the kernel what follows; not for a convolution.

    Args:
        positions: int32, each frame's position in its row, or -1; shorter than x if x holds the same rows several
            times.
        sums: float32 [frames, parts, 2], for a layer after a norm: partial sums of each frame's channels and of their
            squares. The norm's weight and bias are folded into the layer's, or its weight into x, see `gated`.
        activation: "gelu", "gelu_tanh", "silu" or none.
        rotation: float32 [positions, head_dim / 2, 2], for a layer whose outputs are query, key and value: cosine and
            sine by which each pair of adjacent channels of the first head of query and key is rotated.
        newest_from: outputs from this index on have weights for the newest tap only.
        tail: of the convolution that follows, if there are remembered chunks; x then holds the same rows twice.

    Returns:
        The output, and its sums if a residual was added (a norm follows then), else an empty tensor.
    """
    out = _launch(x, positions, layer, shape, sums, activation, rotation, residual, None, newest_from, tail, eps)
    return out.x, out.sums


def gated(
    x: Tensor, positions: Tensor, layer: Layer, shape: Shape, residual: Tensor, modulation: Modulation
) -> Modulated:
    """Compute (x @ weightᵀ + bias) · gate + residual, as `linear` does, and the operand of the layer after the norm."""
    return _launch(x, positions, layer, shape, None, "", None, residual, modulation, None, None, 0.0)


def _launch(
    x: Tensor,
    positions: Tensor,
    layer: Layer,
    shape: Shape,
    sums: Tensor | None,
    activation: str,
    rotation: Tensor | None,
    residual: Tensor | None,
    modulation: Modulation | None,
    newest_from: int | None,
    tail: Tail | None,
    eps: float,
) -> Modulated:
    rows, inputs = x.shape
    outputs = len(layer.bias)
    columns = gcd(shape.columns, outputs)
    taps, depth = layer.weight.shape[1] // inputs, gcd(shape.depth, inputs) if shape.depth else 0
    if not depth:
        x = F.linear(x, layer.weight)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    operand = out if modulation is None else torch.empty_like(out)
    out_sums = torch.empty(rows if residual is not None else 0, outputs // columns, 2, device=x.device)
    launch(
        _linear, (cdiv(rows, shape.rows), outputs // columns),
        x, positions, layer.weight, layer.bias, layer.bias if layer.column_sums is None else layer.column_sums,
        layer.bias if sums is None else sums, layer.bias if rotation is None else rotation,
        x if residual is None else residual, *(modulation or (layer.bias, layer.bias)),
        *(tail or (out, positions)), out, operand, out_sums,
        rows, len(positions), eps, inputs, outputs, taps,
        outputs if newest_from is None else newest_from, 0 if sums is None else sums.shape[1], activation,
        0 if rotation is None else 2 * rotation.shape[1], residual is not None, modulation is not None,
        tail is not None, shape.rows, columns, depth, **shape.options,
    )  # fmt: skip
    return Modulated(out, operand, out_sums)


def sums_of(x: Tensor) -> Tensor:
    """Compute the `sums` of x [frames, channels], in one part."""
    x = x.float()
    return torch.stack([x.sum(1), x.square().sum(1)], dim=-1)[:, None]
