"""Layouts of the flow's kernels, by the number of frames of a call and by the GPU."""

from functools import cache
from typing import NamedTuple

from vllm_cosyvoice.flow.cuda.kernels import Shape
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.gpu.kernel_shape import early_where_possible


class LaunchShapes(NamedTuple):
    """A `Shape` for each kernel of CosyVoice2's flow. Tuned on an H200, see `benchmarks/RESULTS.md`."""

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


class DiTLaunchShapes(NamedTuple):
    """A `Shape` for each kernel of a diffusion transformer. Derived from the ones above, not tuned."""

    qkv: Shape
    out: Shape  # the linear layer after attention
    feed_in: Shape
    feed_out: Shape
    attention: Shape
    input: Shape
    position: Shape  # its columns follow from the model's width
    step: Shape


DIT_SMALL = DiTLaunchShapes(
    qkv=Shape(64, 128, 64, 4, 4),
    out=Shape(64, 64, 64, 4, 5),
    feed_in=Shape(64, 128, 64, 4, 4),
    feed_out=Shape(64, 64, 64, 4, 5),
    attention=Shape(64, 128, 0, 4, 3),
    input=Shape(64, 128, 0, 4, 1),
    position=Shape(64, 0, 0, 4, 4),
    step=Shape(16, 0, 64, 4, 4),
)
DIT_LARGE = DiTLaunchShapes(
    qkv=Shape(128, 128, 64, 8, 3),
    out=Shape(64, 128, 64, 4, 4),
    feed_in=Shape(128, 128, 64, 8, 3),
    feed_out=Shape(64, 128, 64, 4, 4),
    attention=Shape(64, 64, 0, 4, 3),
    input=Shape(64, 128, 0, 4, 1),
    position=Shape(128, 0, 0, 4, 4),
    step=Shape(32, 0, 64, 4, 3),
)
# In large calls on these GPUs, cuBLAS gains more over Triton's products than a pass over the result costs, but for the
# smallest product. This is extrapolated from the times of CosyVoice2's products on an H200, not measured.
DIT_CUBLAS = DIT_LARGE._replace(
    qkv=Shape(4, 1024, 0, 4, 1), feed_in=Shape(4, 1024, 0, 4, 1), feed_out=Shape(4, 1024, 0, 4, 1)
)
CUBLAS_ON = (9, 10)  # major compute capability: Hopper and its successor in data centres
# Frames per multiprocessor. Four times as many channels as in CosyVoice2's flow give four times as many tiles.
DIT_SMALL_UP_TO, DIT_CUBLAS_FROM = SMALL_UP_TO // 4, 17


@cache
def launch_shapes(frames: int, gpu: Gpu) -> LaunchShapes:
    """Select the shapes for a call of `frames`."""
    shapes = SMALL if frames <= SMALL_UP_TO * gpu.multiprocessors else LARGE
    return LaunchShapes(*early_where_possible(shapes, gpu))


@cache
def dit_launch_shapes(frames: int, gpu: Gpu) -> DiTLaunchShapes:
    """Select the shapes of a diffusion transformer for a call of `frames`."""
    if frames <= DIT_SMALL_UP_TO * gpu.multiprocessors:
        shapes = DIT_SMALL
    elif frames >= DIT_CUBLAS_FROM * gpu.multiprocessors and gpu.capability[0] in CUBLAS_ON:
        shapes = DIT_CUBLAS
    else:
        shapes = DIT_LARGE
    return DiTLaunchShapes(*early_where_possible(shapes, gpu))
