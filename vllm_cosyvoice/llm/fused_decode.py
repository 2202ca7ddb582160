"""Decode steps of the language model on a GPU, with five kernels for a layer instead of twelve."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from torch import Tensor

from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.gpu.kernel_shape import Shape
from vllm_cosyvoice.llm import decode_kernels
from vllm_cosyvoice.llm.decode_kernels import Cache

EARLY_FROM = (9, 0)  # compute capability


class DecoderLayer(NamedTuple):
    """The weights of a layer; matrices are [outputs, inputs]. Those of the norms are folded into the matrices."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Shapes(NamedTuple):
    """Layouts of the kernels."""

    project: Shape
    attend: Shape
    out: Shape
    gate: Shape
    down: Shape


class FusedDecode:
    """The layers of a Qwen2 decoder, for one input per request."""

    def __init__(self, layers: Sequence[DecoderLayer], rotation: Tensor, scale: float, eps: float, gpu: Gpu) -> None:
        """`rotation`: see `decode_kernels.project`; `scale`: of attention; `eps`: of the norms."""
        self._layers = layers
        self._rotation, self._scale, self._eps = rotation, scale, eps
        self._early = gpu.capability >= EARLY_FROM

    def __call__(self, x: Tensor, positions: Tensor, cache_of: Callable[[int], Cache]) -> Tensor:
        """Run all layers on `x`, [requests, width], in place, and return it.

        positions: [requests] int64; `cache_of`: gives the cache of a layer, to which the step's keys and values go.
        """
        inputs, hidden = x.shape[1], self._layers[0].down.shape[1]
        shapes = _shapes(len(x), inputs, hidden, self._early)
        for number, layer in enumerate(self._layers):
            cached = cache_of(number)
            queries = decode_kernels.project(
                x, layer.qkv, layer.qkv_bias, self._rotation, positions, cached, self._eps, shapes.project
            )
            attended = decode_kernels.attend(queries, cached, self._scale, shapes.attend)
            decode_kernels.add_product(x, attended, layer.out, shapes.out)
            opened = decode_kernels.gate(x, layer.gate_up, self._eps, shapes.gate)
            decode_kernels.add_product(x, opened, layer.down, shapes.down)
        return x


@cache
def _shapes(requests: int, inputs: int, hidden: int, early: bool) -> Shapes:
    """Layouts that fit in the shared memory of all cards; derived from the bytes that a program reads, not tuned."""
    rows = 16 if requests <= 16 else 32 if requests <= 32 else 64
    half = min(rows, 32)
    width = _divisor(inputs, 128)
    if rows <= 16:
        down = Shape(rows, _divisor(inputs, 16), _divisor(hidden, 256), 4, 5, early)
    else:
        down = Shape(half, _divisor(inputs, 16), _divisor(hidden, 128), 4, 5, early)
    return Shapes(
        project=Shape(half, 16, width, 4, 4, early),
        attend=Shape(0, 128, 0, 4, 2, early),
        out=Shape(half, _divisor(inputs, 16), width, 4, 6, early),
        gate=Shape(rows, _divisor(hidden, max(rows, 32)), min(width, 64) if rows > 32 else width, 4, 3, early),
        down=down,
    )


def _divisor(size: int, most: int) -> int:
    """The largest power of two that divides `size`, up to `most`."""
    return min(size & -size, most)
