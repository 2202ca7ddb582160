"""Layouts of the flow's kernels, by the number of frames of a call and by the GPU."""

from functools import cache
from typing import NamedTuple

from vllm_cosyvoice.flow.cuda.kernels import Shape
from vllm_cosyvoice.gpu.device import Gpu


class LaunchShapes(NamedTuple):
    """A `Shape` for each kernel. Tuned on an H200, see `benchmarks/RESULTS.md`."""

    qkv: Shape
    out: Shape  # the linear layer after attention
    feed_in: Shape
    feed_out: Shape
    conv: Shape
    attention: Shape
    relative_attention: Shape  # with as many rows as `attention`
    norm_mish: Shape
    step: Shape  # first_block and euler_step


SMALL = LaunchShapes(
    qkv=Shape(128, 64, 64, 4, 3),
    out=Shape(64, 64, 64, 4, 5),
    feed_in=Shape(64, 64, 64, 4, 3),
    feed_out=Shape(64, 64, 64, 4, 4),
    conv=Shape(64, 64, 64, 4, 5),
    attention=Shape(64, 128, 0, 4, 3),
    relative_attention=Shape(64, 64, 0, 4, 2),
    norm_mish=Shape(4, 0, 0, 4, 1),
    step=Shape(16, 0, 0, 4, 1),
)
LARGE = LaunchShapes(
    qkv=Shape(128, 128, 64, 8, 3),
    out=Shape(64, 128, 64, 4, 3),
    feed_in=Shape(128, 128, 64, 8, 3),
    feed_out=Shape(64, 128, 64, 4, 3),
    conv=Shape(64, 128, 64, 4, 3),
    attention=Shape(64, 64, 0, 4, 3),
    relative_attention=Shape(64, 64, 0, 4, 2),
    norm_mish=Shape(8, 0, 0, 4, 1),
    step=Shape(32, 0, 0, 4, 1),
)
SMALL_UP_TO = 16  # frames per multiprocessor
EARLY_FROM = (9, 0)  # compute capability


@cache
def launch_shapes(frames: int, gpu: Gpu) -> LaunchShapes:
    """Select the shapes for a call of `frames`."""
    shapes = SMALL if frames <= SMALL_UP_TO * gpu.multiprocessors else LARGE
    return LaunchShapes(*(shape._replace(early=gpu.capability >= EARLY_FROM) for shape in shapes))
