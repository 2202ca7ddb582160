"""The flow's fused kernels, in Triton.

The frames of many rows are packed one after another in tensors [frames, channels], with frames of zeros before each
row. Kernels that must know the rows take `positions` (each frame's position in its row, or -1 between rows) or a table
of attention tiles.
Matrix products take operands in the dtype of the weights and accumulate in float32. All else is computed in float32.
"""

from vllm_cosyvoice.flow.cuda.kernels.attention import Distances, attention
from vllm_cosyvoice.flow.cuda.kernels.dit_step import conditioned_input, normed_euler_step
from vllm_cosyvoice.flow.cuda.kernels.linear import Layer, Modulated, Modulation, gated, linear, sums_of
from vllm_cosyvoice.flow.cuda.kernels.norm_mish import Norm, norm_mish
from vllm_cosyvoice.flow.cuda.kernels.position_conv import position_conv
from vllm_cosyvoice.flow.cuda.kernels.remembered import Pages, Tail
from vllm_cosyvoice.flow.cuda.kernels.step import euler_step, first_block
from vllm_cosyvoice.gpu.kernel_shape import Shape

__all__ = [
    "Distances",
    "Layer",
    "Modulated",
    "Modulation",
    "Norm",
    "Pages",
    "Shape",
    "Tail",
    "attention",
    "conditioned_input",
    "euler_step",
    "first_block",
    "gated",
    "linear",
    "norm_mish",
    "normed_euler_step",
    "position_conv",
    "sums_of",
]
