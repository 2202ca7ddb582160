"""The flow's fused kernels, in Triton.

Frames of many rows lie one behind the other in tensors [frames, channels], with frames of zeros in front of each row.
Where a frame must know its row, it is told by `positions` (its place in the row, or -1 where there is none) or by a
table of attention tiles.
Matrix products take operands in the data type of the weights and add up in float32, as all else here is computed.
"""

from vllm_cosyvoice.flow.cuda.kernels.attention import Distances, attention
from vllm_cosyvoice.flow.cuda.kernels.launch import Shape
from vllm_cosyvoice.flow.cuda.kernels.linear import Layer, linear, sums_of
from vllm_cosyvoice.flow.cuda.kernels.norm_mish import Norm, norm_mish
from vllm_cosyvoice.flow.cuda.kernels.step import euler_step, first_block

__all__ = [
    "Distances",
    "Layer",
    "Norm",
    "Shape",
    "attention",
    "euler_step",
    "first_block",
    "linear",
    "norm_mish",
    "sums_of",
]
