"""Decode steps of the language model on a GPU, with five kernels for a layer instead of twelve."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.gpu.kernel_shape import Shape, early_where_possible
from vllm_cosyvoice.llm import decode_kernels
from vllm_cosyvoice.llm.decode_kernels import Cache


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


MOST_REQUESTS = 256  # of a step; more were not tried

# By the most requests of a step: tuned on an H200, see benchmarks/RESULTS.md.
TUNED = {
    16: Shapes(
        project=Shape(16, 16, 128, 2, 4),
        attend=Shape(0, 256, 0, 8, 1),
        out=Shape(16, 16, 128, 4, 6),
        gate=Shape(16, 64, 128, 4, 3),
        down=Shape(16, 16, 256, 4, 4),
    ),
    64: Shapes(
        project=Shape(64, 16, 64, 4, 6),
        attend=Shape(0, 256, 0, 8, 1),
        out=Shape(32, 16, 128, 4, 6),
        gate=Shape(64, 64, 64, 4, 4),
        down=Shape(64, 16, 256, 4, 4),
    ),
    MOST_REQUESTS: Shapes(
        project=Shape(64, 16, 64, 4, 6),
        attend=Shape(0, 128, 0, 4, 1),
        out=Shape(64, 16, 128, 4, 6),
        gate=Shape(64, 64, 64, 4, 4),
        down=Shape(64, 32, 128, 4, 5),
    ),
}
TUNED_ON = (9, 10)  # major compute capability: Hopper and its successor in data centres
# What fits in the shared memory of other GPUs; not tuned.
SMALL = {
    16: Shapes(
        project=Shape(16, 16, 128, 2, 4),
        attend=Shape(0, 128, 0, 4, 1),
        out=Shape(16, 16, 128, 4, 6),
        gate=Shape(16, 32, 128, 4, 3),
        down=Shape(16, 16, 256, 4, 4),
    ),
    MOST_REQUESTS: Shapes(
        project=Shape(32, 16, 128, 4, 4),
        attend=Shape(0, 128, 0, 4, 1),
        out=Shape(32, 16, 128, 4, 6),
        gate=Shape(64, 64, 64, 4, 3),
        down=Shape(32, 16, 128, 4, 5),
    ),
}


class FusedDecode:
    """The layers of a Qwen2 decoder, for one input per request."""

    def __init__(self, layers: Sequence[DecoderLayer], rotation: Tensor, scale: float, eps: float, gpu: Gpu) -> None:
        """`rotation`: see `decode_kernels.project`; `scale`: of attention; `eps`: of the norms."""
        self._layers = layers
        self._rotation, self._scale, self._eps = rotation, scale, eps
        layouts = TUNED if gpu.capability[0] in TUNED_ON else SMALL
        self._layouts = {most: Shapes(*early_where_possible(shapes, gpu)) for most, shapes in layouts.items()}

    @property
    def sizes(self) -> list[int]:
        """Numbers of requests that have different layouts, each the most for its layout; together, all layouts."""
        return list(self._layouts)

    def __call__(self, x: Tensor, positions: Tensor, cache_of: Callable[[int], Cache]) -> Tensor:
        """Run all layers on `x`, [up to `MOST_REQUESTS`, width], in place, and return it.

        positions: [requests] int64; `cache_of`: gives the cache of a layer, to which the step's keys and values go.
        """
        shapes = next(shapes for most, shapes in self._layouts.items() if len(x) <= most)
        squares = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).square()
        for number, layer in enumerate(self._layers):
            cached = cache_of(number)
            queries = decode_kernels.project(
                x, squares, layer.qkv, layer.qkv_bias, self._rotation, positions, cached, self._eps, shapes.project
            )
            attended = decode_kernels.attend(queries, cached, self._scale, shapes.attend)
            squares = decode_kernels.add_product(x, attended, layer.out, shapes.out)
            opened = decode_kernels.gate(x, squares, layer.gate_up, self._eps, shapes.gate)
            squares = decode_kernels.add_product(x, opened, layer.down, shapes.down)
        return x
