"""The estimator's first block, which splits frames into those with and without the condition, and the Euler step."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from vllm_cosyvoice.flow.cuda.kernels.linear import Layer
from vllm_cosyvoice.flow.cuda.kernels.norm_mish import Norm, normed_mish
from vllm_cosyvoice.flow.cuda.kernels.remembered import Tail, exchanged
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs


@triton.jit
def _first_block(
    x, positions, weight, bias, norm_weight, norm_bias, time, shortcut_weight, shortcut_bias,
    condition, condition_shortcut, tail_memory, tail_frames, out, shortcut, half, eps,
    MELS: tl.constexpr, PADDED: tl.constexpr, CHANNELS: tl.constexpr, TAILED: tl.constexpr, ROWS: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    mel = tl.arange(0, PADDED)
    inside = row[:, None] < half
    place = row[:, None] * CHANNELS + channel[None, :]
    position = tl.load(positions + row, row < half, -1)
    if TAILED:
        tail = tl.load(tail_frames + row, row < half, -1)
    wait_for_inputs(EARLY)
    in_row = (position >= 0)[:, None]
    data_type = weight.dtype.element_ty
    y = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tap in tl.static_range(3):
        valid = (row < half) & (position >= 2 - tap)
        tile = tl.load(x + (row - 2 + tap)[:, None] * MELS + mel[None, :], valid[:, None] & (mel < MELS)[None, :], 0.0)
        w = tl.load(weight + channel[None, :] * (3 * PADDED) + (tap * PADDED + mel)[:, None])
        y = tl.dot(tile.to(data_type), w, y, input_precision="ieee")
    y += tl.load(bias + channel)[None, :]
    tile = tl.load(x + row[:, None] * MELS + mel[None, :], inside & (mel < MELS)[None, :], 0.0)
    w = tl.load(shortcut_weight + channel[None, :] * PADDED + mel[:, None])
    z = tl.dot(tile.to(data_type), w, input_precision="ieee") + tl.load(shortcut_bias + channel)[None, :]
    let_next_in(EARLY)
    for guided in tl.static_range(2):
        hidden, short = y, z
        if guided:
            hidden += tl.load(condition + place, inside, 0.0).to(tl.float32)
            short += tl.load(condition_shortcut + place, inside, 0.0).to(tl.float32)
        hidden = normed_mish(
            hidden, tl.load(norm_weight + channel)[None, :], tl.load(norm_bias + channel)[None, :], eps
        )
        hidden += tl.load(time + channel)[None, :].to(tl.float32)
        offset = (1 - guided) * half * CHANNELS
        hidden = tl.where(in_row, hidden, 0.0)
        if TAILED:
            hidden = exchanged(hidden, in_row, 2 * tail + (1 - guided), channel, tail_memory, CHANNELS)
        tl.store(out + offset + place, hidden.to(out.dtype.element_ty), inside)
        tl.store(shortcut + offset + place, short.to(out.dtype.element_ty), inside)


def first_block(
    x: Tensor,
    positions: Tensor,
    conv: Layer,
    norm: Norm,
    time: Tensor,
    shortcut: Layer,
    condition: tuple[Tensor, Tensor],
    shape: Shape,
    tail: Tail | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Compute the first half of the estimator's first residual block, for x with and without the condition.

    Takes x [frames, 80] float32 and returns two tensors [2 · frames, channels]: the input of the second half, and the
    shortcut. Both hold the frames with the condition first, then those without.

    Args:
        conv, shortcut: the parts of both layers that see x, the inputs of each tap padded with zeros to a power of two.
        time: [channels], added between the two convolutions.
        condition: the terms that the condition adds to the output of both layers, each [frames, channels].
        tail: see `linear`.
    """
    half, mels = x.shape
    channels, padded = shortcut.weight.shape
    out = torch.empty(2 * half, channels, dtype=conv.weight.dtype, device=x.device)
    short = torch.empty_like(out)
    launch(
        _first_block, (cdiv(half, shape.rows),),
        x, positions, conv.weight, conv.bias, *norm, time, shortcut.weight, shortcut.bias, *condition,
        *(tail or (out, positions)), out, short,
        half, eps, mels, padded, channels, tail is not None, shape.rows, **shape.options,
    )  # fmt: skip
    return out, short


@triton.jit
def _euler_step(
    hidden, positions, weight, bias, tail_memory, tail_frames, x, half, size, guidance,
    MELS: tl.constexpr, PADDED: tl.constexpr, CHANNELS: tl.constexpr, TAILED: tl.constexpr, ROWS: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    mel = tl.arange(0, PADDED)
    inside = row[:, None] < half
    w = tl.load(weight + mel[None, :] * CHANNELS + channel[:, None])
    if TAILED:
        in_row = (tl.load(positions + row, row < half, -1) >= 0)[:, None]
        tail = tl.load(tail_frames + row, row < half, -1)
    wait_for_inputs(EARLY)
    guided = tl.load(hidden + row[:, None] * CHANNELS + channel[None, :], inside, 0.0)
    free = tl.load(hidden + (row + half)[:, None] * CHANNELS + channel[None, :], inside, 0.0)
    guided = tl.dot(guided, w, input_precision="ieee")
    free = tl.dot(free, w, input_precision="ieee")
    let_next_in(EARLY)
    velocity = guided + guidance * (guided - free) + tl.load(bias + mel)[None, :]
    place = x + row[:, None] * MELS + mel[None, :]
    inside = inside & (mel < MELS)[None, :]
    y = tl.load(place, inside, 0.0) + size * velocity
    if TAILED:
        y = exchanged(y, in_row, tail, mel, tail_memory, MELS)
    tl.store(place, y, inside)


def euler_step(
    hidden: Tensor,
    positions: Tensor,
    proj: Layer,
    x: Tensor,
    size: float,
    guidance: float,
    shape: Shape,
    tail: Tail | None = None,
) -> None:
    """Move x [frames, 80] float32 by `size` along the guided velocity.

    The velocities are proj(hidden), with hidden [2 · frames, channels]: first with the condition, then without. The
    outputs of `proj` are padded with zeros to a power of two. `tail` is that of x, in one copy.
    """
    half, mels = x.shape
    padded, channels = proj.weight.shape
    launch(
        _euler_step, (cdiv(half, shape.rows),),
        hidden, positions, proj.weight, proj.bias, *(tail or (x, positions)), x, half, size, guidance, mels, padded,
        channels, tail is not None, shape.rows, **shape.options,
    )  # fmt: skip
