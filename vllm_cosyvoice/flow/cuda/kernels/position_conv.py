"""The grouped causal convolutions that tell a diffusion transformer's frames their relative positions."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from vllm_cosyvoice.flow.cuda.kernels.linear import Layer, Modulated
from vllm_cosyvoice.flow.cuda.kernels.norm_mish import mish
from vllm_cosyvoice.flow.cuda.kernels.norm_sums import store_sums
from vllm_cosyvoice.flow.cuda.kernels.remembered import Tail, exchanged
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs


@triton.jit
def _position_conv(
    x, positions, weight, bias, residual, norm_weight, tail_memory, tail_frames, out, operand, out_sums, rows, half,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr, TAPS: tl.constexpr, RESIDUAL: tl.constexpr, TAILED: tl.constexpr,
    ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, GROUP)
    column = tl.program_id(1) * GROUP + channel
    position = tl.load(positions + row % half, row < rows, -1)
    bias_values = tl.load(bias + column)[None, :]
    if TAILED:
        tail = tl.load(tail_frames + row % half, row < rows, -1)
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    x_row = x + (row - (TAPS - 1))[:, None] * CHANNELS + column[None, :]
    w_column = weight + column[None, :] * (TAPS * GROUP) + channel[:, None]
    y = tl.zeros((ROWS, GROUP), tl.float32)
    for tap in range(0, TAPS):
        in_row = (position >= TAPS - 1 - tap)[:, None]
        tile = tl.load(x_row + tap * CHANNELS, in_row, 0.0)
        y = tl.dot(tile, tl.load(w_column + tap * GROUP), y, input_precision="ieee")
    y = mish(y + bias_values)
    place = row[:, None] * CHANNELS + column[None, :]
    inside = row[:, None] < rows
    if RESIDUAL:
        y += tl.load(residual + place, inside, 0.0).to(tl.float32)
        scaled = y * tl.load(norm_weight + column)[None, :]
        tl.store(operand + place, scaled.to(operand.dtype.element_ty), inside)
        store_sums(out_sums, y, row, rows, tl.program_id(1), CHANNELS // GROUP)
    if TAILED:
        y = exchanged(y, (position >= 0)[:, None], 2 * tail + row // half, column, tail_memory, CHANNELS)
    tl.store(out + place, y.to(out.dtype.element_ty), inside)


def position_conv(
    x: Tensor,
    positions: Tensor,
    conv: Layer,
    groups: int,
    shape: Shape,
    *,
    residual: Tensor | None = None,
    norm_weight: Tensor | None = None,
    tail: Tail | None = None,
) -> Modulated:
    """Compute mish(conv(x)) + residual, where each frame sees itself and those before it in its row.

    Args:
        x: [frames, channels]; it may have any values between rows.
        positions: int32, each frame's position in its row, or -1; shorter than x if x holds the same rows several
            times.
        conv: weight [channels, taps · channels of a group], oldest tap first.
        residual: [frames, channels], with the weight [channels] of the norm that follows. Without it, the result's
            `operand` and `sums` have no meaning.
        tail: see `linear`.
    """
    rows, channels = x.shape
    group = channels // groups
    out = torch.empty_like(x)
    operand = out if residual is None else torch.empty_like(x)
    sums = torch.empty(rows, groups, 2, device=x.device)
    launch(
        _position_conv, (cdiv(rows, shape.rows), groups),
        x, positions, conv.weight, conv.bias, x if residual is None else residual,
        conv.bias if norm_weight is None else norm_weight, *(tail or (out, positions)), out, operand, sums, rows,
        len(positions), channels, group,
        conv.weight.shape[1] // group, residual is not None, tail is not None, shape.rows, **shape.options,
    )  # fmt: skip
    return Modulated(out, operand, sums)
