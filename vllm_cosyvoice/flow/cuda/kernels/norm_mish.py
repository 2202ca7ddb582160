"""Norm, Mish and addition, which follow a convolution in a residual block."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from vllm_cosyvoice.flow.cuda.kernels.norm_sums import store_sums
from vllm_cosyvoice.flow.cuda.kernels.remembered import Tail, exchanged
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs

LARGEST_EXPONENT = tl.constexpr(20.0)  # above this, mish(x) is x


class Norm(NamedTuple):
    """The weight and bias of a layer norm, float32."""

    weight: Tensor
    bias: Tensor


@triton.jit
def mish(x):
    """x · tanh(log(1 + e^x)) of x float32."""
    e = tl.exp(tl.minimum(x, LARGEST_EXPONENT))
    n = e * (e + 2)
    return x * n / (n + 2)


@triton.jit
def normed_mish(x, weight, bias, eps):
    """mish(norm(x)) of x [rows, channels] float32."""
    x = x - tl.sum(x, 1)[:, None] / x.shape[1]
    x = x * tl.rsqrt(tl.sum(x * x, 1)[:, None] / x.shape[1] + eps) * weight + bias
    return mish(x)


@triton.jit
def _norm_mish(
    x, x_stride, positions, weight, bias, added, added_stride, tail_memory, tail_frames,
    out, out_sums, rows, half, eps,
    CHANNELS: tl.constexpr, ADDED: tl.constexpr, TAILED: tl.constexpr, ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    in_row = (tl.load(positions + row % half, row < rows, -1) >= 0)[:, None]
    norm_weight = tl.load(weight + channel)[None, :]
    norm_bias = tl.load(bias + channel)[None, :]
    if TAILED:
        tail = tl.load(tail_frames + row % half, row < rows, -1)
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    y = tl.load(x + row[:, None] * x_stride + channel[None, :], in_row, 0.0).to(tl.float32)
    y = normed_mish(y, norm_weight, norm_bias, eps)
    if ADDED:
        y += tl.load(added + row[:, None] * added_stride + channel[None, :], in_row, 0.0).to(tl.float32)
    y = tl.where(in_row, y, 0.0)
    if TAILED:
        y = exchanged(y, in_row, 2 * tail + row // half, channel, tail_memory, CHANNELS)
    tl.store(out + row[:, None] * CHANNELS + channel[None, :], y.to(out.dtype.element_ty), row[:, None] < rows)
    store_sums(out_sums, y, row, rows, 0, 1)


def norm_mish(
    x: Tensor,
    positions: Tensor,
    norm: Norm,
    shape: Shape,
    added: Tensor | None = None,
    tail: Tail | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Compute mish(norm(x)) + added, [frames, channels], and its `sums` for `linear`.

    x and `added` may be columns of a wider tensor. `added` may also be [channels], the same for all frames. For `tail`,
    see `linear`.
    """
    rows, channels = x.shape
    out = torch.empty(rows, channels, dtype=x.dtype, device=x.device)
    out_sums = torch.empty(rows, 1, 2, device=x.device)
    added_stride = 0 if added is None or added.ndim == 1 else added.stride(0)
    launch(
        _norm_mish, (cdiv(rows, shape.rows),),
        x, x.stride(0), positions, *norm, x if added is None else added, added_stride,
        *(tail or (out, positions)), out, out_sums, rows,
        len(positions), eps, channels, added is not None, tail is not None, shape.rows, **shape.options,
    )  # fmt: skip
    return out, out_sums
