"""One Triton kernel for all convolutions of the generator, over windows of many streams packed on one time axis.

A packed tensor is [planes, frames · rate, channels]: no batch axis, windows one after another, channels last, and one
plane for each branch that is computed in parallel. `starts` and `ends` give the bounds of each frame's window. The
kernel reads zeros outside the window, so the result of a window does not depend on its neighbours.

The kernel is an implicit matrix product: for each tap, it multiplies the shifted input tile by the tap's
[inputs, outputs] weight, with operands in float16 and sums in float32. The next layer's activation is applied before a
tile is stored, which saves a separate pass over the tensor.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.vocoder.torch.causal_generator import CausalConv, PaddedConv

LARGEST = tl.constexpr(65504.0)  # in float16; larger values saturate
# sin²(πr) for |r| ≤ 1/2 as a minimax polynomial in r², with an error of up to 7e-7. (A general sine takes several
# times the instructions and registers.)
SIN2_1 = tl.constexpr(9.869524812643045)
SIN2_2 = tl.constexpr(-32.465139514141704)
SIN2_3 = tl.constexpr(42.643425723009415)
SIN2_4 = tl.constexpr(-29.426272028359705)
SIN2_5 = tl.constexpr(10.581296291088229)
CHANNEL_MULTIPLE = 16  # smallest side of a matrix product


@triton.jit  # type: ignore[untyped-decorator]
def _sin_squared_of_pi_times(x: tl.tensor) -> tl.tensor:
    r = x - tl.floor(x + 0.5)
    u = r * r
    return u * (SIN2_1 + u * (SIN2_2 + u * (SIN2_3 + u * (SIN2_4 + u * SIN2_5))))


@triton.jit  # type: ignore[untyped-decorator]
def _saturated(x: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(x, -LARGEST), LARGEST)


@triton.jit  # type: ignore[untyped-decorator]
def _convolve(
    x: tl.tensor,  # [groups · PLANES, input positions, INPUTS] float16
    weight: tl.tensor,  # [taps of all planes, INPUTS, OUTPUTS] float16
    bias: tl.tensor,  # [groups, OUTPUTS] float32
    taps_of: tl.tensor,  # [groups · PLANES, 3]: number of taps, index of the first in `weight`, its offset to the left
    starts: tl.tensor,  # [frames]
    ends: tl.tensor,  # [frames]
    residual: tl.tensor,  # RESIDUALS planes per group, [positions, OUTPUTS] each
    raw: tl.tensor,  # [groups, positions, OUTPUTS] or None
    activated: tl.tensor,  # [groups · ACTIVATIONS, positions, OUTPUTS] float16 or None
    alpha: tl.tensor,  # [groups · ACTIVATIONS, OUTPUTS] float32, snake's α / π
    inverse: tl.tensor,  # same shape, 1 / α; None for a leaky ReLU
    slope: float,  # of the leaky ReLU
    scale: float,  # of the whole sum
    positions: int,
    dilation: int,
    input_plane: int,  # elements from one plane of `x` to the next
    residual_group: int,  # elements from one group's residuals to the next's, 0 if all groups share one
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PLANES: tl.constexpr,  # inputs that are convolved with separate weights and summed
    RATE: tl.constexpr,  # positions per frame; an upsampling convolution has RATE · PHASES in its output
    STRIDE: tl.constexpr,  # input positions per position
    PHASES: tl.constexpr,  # output positions per position, consecutive in OUTPUTS
    INPUT_EXTRA: tl.constexpr,  # positions of a window beyond its frames, 0 or 1
    OUTPUT_EXTRA: tl.constexpr,
    RESIDUALS: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    group = tl.program_id(2)
    position = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = tl.arange(0, BLOCK_K)
    in_range = position < positions
    start = tl.load(starts + position // RATE, mask=in_range, other=0)
    end = tl.load(ends + position // RATE, mask=in_range, other=0)
    first = start * (RATE * STRIDE)
    stop = end * (RATE * STRIDE) + INPUT_EXTRA

    CHUNKS: tl.constexpr = INPUTS // BLOCK_K
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for summed in range(PLANES):
        plane = group * PLANES + summed
        taps = tl.load(taps_of + 3 * plane)
        plane_weight = weight + tl.load(taps_of + 3 * plane + 1) * (INPUTS * OUTPUTS)
        leftmost = position * STRIDE - tl.load(taps_of + 3 * plane + 2)
        for step in range(taps * CHUNKS):
            row = leftmost + step // CHUNKS * dilation
            inside = (row >= first) & (row < stop)
            source = x + plane * input_plane + row[:, None] * INPUTS + (step % CHUNKS * BLOCK_K + channel)[None, :]
            factor = plane_weight + (step * BLOCK_K + channel)[:, None] * OUTPUTS + column[None, :]
            total = tl.dot(tl.load(source, mask=inside[:, None], other=0.0), tl.load(factor), total)

    total += tl.load(bias + group * OUTPUTS + column)[None, :]
    offset = position[:, None] * OUTPUTS + column[None, :]
    for index in tl.static_range(RESIDUALS):
        added = residual + group * residual_group + index * positions * OUTPUTS + offset
        total += tl.load(added, mask=in_range[:, None], other=0.0).to(tl.float32)
    output_position = position[:, None] * PHASES + (column // (OUTPUTS // PHASES))[None, :]
    valid = output_position < (end * (RATE * PHASES) + OUTPUT_EXTRA)[:, None]
    total = tl.where(valid, total * scale, 0.0)
    if raw is not None:
        target = raw + group * positions * OUTPUTS + offset
        tl.store(target, _saturated(total).to(raw.dtype.element_ty), mask=in_range[:, None])
    for index in tl.static_range(ACTIVATIONS):
        plane = group * ACTIVATIONS + index
        if inverse is None:
            active = tl.where(total > 0, total, total * slope)
        else:
            frequency = tl.load(alpha + plane * OUTPUTS + column)[None, :]
            height = tl.load(inverse + plane * OUTPUTS + column)[None, :]
            active = total + height * _sin_squared_of_pi_times(total * frequency)
        target = activated + plane * positions * OUTPUTS + offset
        tl.store(target, _saturated(active).to(activated.dtype.element_ty), mask=in_range[:, None])


class Windows(NamedTuple):
    """Arguments that all convolutions of a call share: the window bounds of each frame, and the GPU.

    A spare frame follows each window, for the positions that it has beyond its frames.
    """

    starts: Tensor  # int32 [frames]; like `ends`, 0 for frames outside any window
    ends: Tensor
    gpu: Gpu

    @property
    def inside(self) -> Tensor:
        """Whether each frame is in its window and not the spare one, bool [frames]."""
        return torch.arange(len(self.ends), device=self.ends.device) < self.ends


class Activation(NamedTuple):
    """Activation of a convolution's sum: a leaky ReLU, or snakes with `alpha` and `inverse`, one per output plane."""

    slope: float = 0.0
    alpha: Tensor | None = None  # [planes, channels] float32
    inverse: Tensor | None = None  # [planes, channels] float32

    @classmethod
    def snake(cls, alphas: Sequence[Tensor], inverses: Sequence[Tensor]) -> "Activation":
        """Create snakes x + inverse · sin²(alpha · x), with one alpha and inverse [channels] per plane."""
        padded = [torch.stack([pad_channels(row, 0) for row in rows]).float() for rows in (alphas, inverses)]
        return cls(alpha=padded[0] / math.pi, inverse=padded[1])


class Tile(NamedTuple):
    """Tile and launch options of one program of the kernel."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


class Taps(NamedTuple):
    """The weight of one convolution, tap by tap, with padded channels."""

    weight: Tensor  # [taps, inputs, outputs]
    bias: Tensor  # [outputs]
    left: int  # input positions from the first tap to the position itself

    @classmethod
    def of(cls, conv: nn.Conv1d) -> "Taps":
        """Convert the weight of a convolution."""
        weight, bias = _padded(conv)
        left = conv.left if isinstance(conv, PaddedConv) else int(conv.padding[0])
        return cls(weight.permute(2, 1, 0), bias, left)

    @classmethod
    def transposed(cls, conv: nn.ConvTranspose1d, shift: int) -> "Taps":
        """Convert the weight of a transposed convolution, and delay its output by `shift` positions.

        For each phase, output position stride · t + phase is a convolution of the input around t with its own taps, so
        the outputs are [phase, channel].
        """
        weight, bias = _padded(conv)
        inputs, outputs, kernel = weight.shape
        stride, offset = conv.stride[0], int(conv.padding[0]) - shift
        furthest, nearest = (kernel - 1 - offset) // stride, -((offset + stride - 1) // stride)
        taps = weight.new_zeros(furthest - nearest + 1, inputs, stride, outputs)
        for tap, back in enumerate(range(furthest, nearest - 1, -1)):
            for phase in range(stride):
                index = stride * back + phase + offset
                if 0 <= index < kernel:
                    taps[tap, :, phase] = weight[:, :, index]
        return cls(taps.flatten(2), bias.repeat(stride), furthest)

    @classmethod
    def repeated(cls, conv: CausalConv, repeats: int, shift: int) -> "Taps":
        """Convert the weight of a convolution whose input is repeated, and delay its output by `shift` positions.

        It takes the input before the repetition: taps that would read the same value are added up. The outputs are
        [phase, channel], as in `transposed`.
        """
        weight, bias = _padded(conv)
        outputs, inputs, kernel = weight.shape
        leftmost = -conv.left - shift  # what phase 0 reads first, in repeated positions
        furthest = -(leftmost // repeats)
        taps = weight.new_zeros(furthest + 1, inputs, repeats, outputs)
        for phase in range(repeats):
            for index in range(kernel):
                taps[furthest + (leftmost + phase + index) // repeats, :, phase] += weight[:, :, index].T
        return cls(taps.flatten(2), bias.repeat(repeats), furthest)


class Convolution:
    """Convolutions of equal shape except for their kernel sizes, computed in parallel and, if `summed`, added up.

    Args:
        taps: one per convolution.
        rate: computed positions per frame, of the output or, with `phases`, of the input.
        stride: input positions from one position to the next.
        phases: output positions per position: the factor of an upsampling convolution.
        extra: positions that a window has beyond its frames, in the input and in the output.
    """

    def __init__(
        self,
        taps: Sequence[Taps],
        *,
        rate: int,
        dilation: int = 1,
        stride: int = 1,
        phases: int = 1,
        extra: tuple[int, int] = (0, 0),
        summed: bool = False,
    ) -> None:
        self.rate, self.dilation, self.stride, self.phases, self.extra = rate, dilation, stride, phases, extra
        self.planes = len(taps) if summed else 1
        self.groups = len(taps) // self.planes
        self.weight = torch.cat([tap.weight for tap in taps]).half().contiguous()
        bias = torch.stack([tap.bias for tap in taps])
        self.bias = bias.sum(0, keepdim=True) if summed else bias
        self.inputs, self.outputs = self.weight.shape[1:]
        counts = [len(tap.weight) for tap in taps]
        firsts = [sum(counts[:index]) for index in range(len(counts))]
        table = [[count, first, tap.left] for count, first, tap in zip(counts, firsts, taps, strict=True)]
        self.taps = torch.tensor(table, dtype=torch.int32, device=self.weight.device)
        self.tile: Tile | None = None  # overrides `tile_for`

    @property
    def flops(self) -> int:
        """Number of multiplications and additions per frame."""
        return 2 * self.weight.numel() * self.rate

    def __call__(
        self,
        x: Tensor,
        windows: Windows,
        *,
        residual: Tensor | None = None,
        raw: Tensor | None = None,
        activation: Activation | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """Compute activation(scale · (convolution + bias + residual)), zero outside the windows.

        Args:
            x: [groups · planes, frames · rate · stride, inputs] float16.
            residual: [residuals, frames · rate, outputs]. Several groups take one plane each, or share the only one;
                a single group takes the sum of all planes.
            raw: receives the sum before the activation, [groups, frames · rate, outputs] of any dtype, if given.
            activation: produces the result, [activation's planes, frames · rate, outputs] float16. If None, `raw` is
                the result.
        """
        positions = x.shape[1] // self.stride
        count = 0 if activation is None else 1 if activation.alpha is None else len(activation.alpha) // self.groups
        activated = x.new_empty(self.groups * count, positions, self.outputs) if count else None
        tile = self.tile or tile_for(self.inputs, self.outputs, positions * self.groups, windows.gpu)
        launch(
            _convolve,
            (self.outputs // tile.n, triton.cdiv(positions, tile.m), self.groups),
            x,
            self.weight,
            self.bias,
            self.taps,
            windows.starts,
            windows.ends,
            residual,
            raw,
            activated,
            activation.alpha if activation else None,
            activation.inverse if activation else None,
            activation.slope if activation else 0.0,
            scale,
            positions,
            self.dilation,
            x[0].numel(),
            0 if residual is None or len(residual) < self.groups else residual[0].numel(),
            INPUTS=self.inputs,
            OUTPUTS=self.outputs,
            PLANES=self.planes,
            RATE=self.rate,
            STRIDE=self.stride,
            PHASES=self.phases,
            INPUT_EXTRA=self.extra[0],
            OUTPUT_EXTRA=self.extra[1],
            RESIDUALS=0 if residual is None else len(residual) if self.groups == 1 else 1,
            ACTIVATIONS=count,
            BLOCK_M=tile.m,
            BLOCK_N=tile.n,
            BLOCK_K=tile.k,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        result = raw if activated is None else activated
        assert result is not None, "a convolution without an activation needs `raw`"
        return result


def tile_for(inputs: int, outputs: int, positions: int, gpu: Gpu) -> Tile:
    """Select the tile that was fastest in `python -m benchmarks.vocoder --tune` on an H200.

    `positions` is the sum over all groups.
    """
    n, k = min(outputs & -outputs, 128), min(inputs & -inputs, 64)
    if positions // 128 * (outputs // n) < 2 * gpu.multiprocessors:  # large tiles would leave some idle
        return Tile(64, n, k, warps=4, stages=4)
    match n, outputs:
        case 128, 128:
            return Tile(256, 128, k, warps=8, stages=3)
        case 128, _:
            return Tile(128, min(outputs & -outputs, 256), k, warps=8, stages=3)
    return Tile(128, n, k, warps=4, stages=3)


def _padded(conv: nn.Conv1d | nn.ConvTranspose1d) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    return pad_channels(pad_channels(conv.weight, 0), 1), pad_channels(conv.bias, 0)


def pad_channels(x: Tensor, dim: int) -> Tensor:
    """Pad `x` with zeros along `dim` to a size that a matrix product supports."""
    channels = x.shape[dim]
    missing = -channels % CHANNEL_MULTIPLE
    return torch.cat([x, x.new_zeros(*x.shape[:dim], missing, *x.shape[dim + 1 :])], dim) if missing else x
