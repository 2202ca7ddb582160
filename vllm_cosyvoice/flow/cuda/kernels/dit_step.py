"""The ends of a diffusion transformer's step: from x to frames with and without the condition, and the Euler step."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from vllm_cosyvoice.flow.cuda.kernels.linear import Layer, Modulated
from vllm_cosyvoice.flow.cuda.kernels.norm_sums import load_sums, mean_and_scale
from vllm_cosyvoice.flow.cuda.kernels.remembered import Tail, exchanged
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs


@triton.jit
def _input(
    x, positions, weight, bias, condition, tail_memory, tail_frames, out, half,
    MELS: tl.constexpr, PADDED: tl.constexpr, CHANNELS: tl.constexpr, TAILED: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mel = tl.arange(0, PADDED)
    inside = row[:, None] < half
    w = tl.load(weight + column[None, :] * PADDED + mel[:, None])
    bias_values = tl.load(bias + column)[None, :]
    if TAILED:
        in_row = (tl.load(positions + row, row < half, -1) >= 0)[:, None]
        tail = tl.load(tail_frames + row, row < half, -1)
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    tile = tl.load(x + row[:, None] * MELS + mel[None, :], inside & (mel < MELS)[None, :], 0.0)
    place = row[:, None] * CHANNELS + column[None, :]
    added = tl.load(condition + place, inside, 0.0).to(tl.float32)
    free = tl.dot(tile.to(w.dtype), w, input_precision="ieee") + bias_values
    guided = free + added
    if TAILED:
        guided = exchanged(guided, in_row, 2 * tail, column, tail_memory, CHANNELS)
        free = exchanged(free, in_row, 2 * tail + 1, column, tail_memory, CHANNELS)
    tl.store(out + place, guided.to(out.dtype.element_ty), inside)
    tl.store(out + half * CHANNELS + place, free.to(out.dtype.element_ty), inside)


def conditioned_input(
    x: Tensor, positions: Tensor, proj: Layer, condition: Tensor, shape: Shape, tail: Tail | None = None
) -> Tensor:
    """Project x [frames, 80] float32 to [2 · frames, channels]: first with the condition added, then without.

    Args:
        proj: inputs padded with zeros to a power of two.
        condition: [frames, channels].
        tail: see `linear`.
    """
    half, mels = x.shape
    channels, padded = proj.weight.shape
    out = torch.empty(2 * half, channels, dtype=proj.weight.dtype, device=x.device)
    launch(
        _input, (cdiv(half, shape.rows), cdiv(channels, shape.columns)),
        x, positions, *proj[:2], condition, *(tail or (out, positions)), out, half, mels, padded, channels,
        tail is not None, shape.rows, shape.columns, **shape.options,
    )  # fmt: skip
    return out


@triton.jit
def _normed_euler_step(
    operand, sums, weight, bias, column_sums, x, half, size, guidance, eps,
    MELS: tl.constexpr, PADDED: tl.constexpr, CHANNELS: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    depth = tl.arange(0, DEPTH)
    mel = tl.arange(0, PADDED)
    inside = row[:, None] < half
    bias_values = tl.load(bias + mel)[None, :]
    column_sum_values = tl.load(column_sums + mel)[None, :]
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    sum_of_guided, squares_of_guided = load_sums(sums, row, half, PARTS)
    sum_of_free, squares_of_free = load_sums(sums + half * (2 * PARTS), row, half, PARTS)
    operand_row = operand + tl.minimum(row, half - 1)[:, None] * CHANNELS + depth[None, :]
    w_column = weight + mel[None, :] * CHANNELS + depth[:, None]
    guided = tl.zeros((ROWS, PADDED), tl.float32)
    free = tl.zeros((ROWS, PADDED), tl.float32)
    for start in range(0, CHANNELS, DEPTH):
        w = tl.load(w_column + start)
        guided = tl.dot(tl.load(operand_row + start), w, guided, input_precision="ieee")
        free = tl.dot(tl.load(operand_row + half * CHANNELS + start), w, free, input_precision="ieee")
    mean, norm_scale = mean_and_scale(sum_of_guided, squares_of_guided, CHANNELS, eps)
    guided = (guided - mean * column_sum_values) * norm_scale
    mean, norm_scale = mean_and_scale(sum_of_free, squares_of_free, CHANNELS, eps)
    free = (free - mean * column_sum_values) * norm_scale
    velocity = guided + guidance * (guided - free) + bias_values
    place = x + row[:, None] * MELS + mel[None, :]
    inside = inside & (mel < MELS)[None, :]
    tl.store(place, tl.load(place, inside, 0.0) + size * velocity, inside)


def normed_euler_step(
    frames: Modulated, proj: Layer, x: Tensor, size: float, guidance: float, shape: Shape, eps: float
) -> None:
    """Move x [frames, 80] float32 by `size` along the guided velocity.

    The velocities are proj(norm(frames)), with frames [2 · frames, channels]: first with the condition, then without.
    The outputs of `proj` are padded with zeros to a power of two.
    """
    half, mels = x.shape
    padded, channels = proj.weight.shape
    launch(
        _normed_euler_step, (cdiv(half, shape.rows),),
        frames.operand, frames.sums, *proj, x, half, size, guidance, eps, mels, padded, channels,
        frames.sums.shape[1], shape.rows, shape.depth, **shape.options,
    )  # fmt: skip
