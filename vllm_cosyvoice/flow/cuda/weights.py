"""Converts the flow's weights to the layout of the fused kernels."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.flow.cuda.kernels import Layer, Norm
from vllm_cosyvoice.flow.torch.estimator import Resnet
from vllm_cosyvoice.nn.layers import frame_conv_weight

TAPS = 3  # of every convolution of the estimator


def layer(linear: nn.Linear, data_type: torch.dtype) -> Layer:
    """Convert a linear layer or `FrameConv`."""
    return Layer(linear.weight.to(data_type).contiguous(), linear.bias.float().contiguous())


def conv_layer(conv: nn.Conv1d, data_type: torch.dtype) -> Layer:
    """Convert a convolution, which may have groups."""
    assert conv.bias is not None
    return Layer(frame_conv_weight(conv.weight).to(data_type).contiguous(), conv.bias.float().contiguous())


def norm(module: nn.LayerNorm) -> Norm:
    """Convert a norm's weight and bias."""
    return Norm(module.weight.float(), module.bias.float())


def folded(module: nn.LayerNorm, linear: nn.Linear, data_type: torch.dtype) -> Layer:
    """Fold the weight and bias of a norm into the linear layer after it."""
    bias = linear.weight @ module.bias
    if linear.bias is not None:
        bias = bias + linear.bias
    weight = (linear.weight * module.weight).to(data_type).contiguous()
    return Layer(weight, bias.float(), weight.float().sum(1))


def modulated(linear: Layer, norm_weights: Tensor, norm_biases: Tensor, data_type: torch.dtype) -> list[Layer]:
    """A linear layer, in float32, after a norm that has a weight and a bias [steps, channels] for each solver step.

    All steps share the layer's weight: the kernel before multiplies the frames by the norm's, see `gated`.
    """
    weight = linear.weight.to(data_type).contiguous()
    biases = linear.bias + norm_biases @ linear.weight.T
    column_sums = norm_weights @ weight.float().T
    return [Layer(weight, *of_step) for of_step in zip(biases, column_sums, strict=True)]


def conv_and_shortcut(module: Resnet, data_type: torch.dtype) -> Layer:
    """Combine the first convolution of a residual block with the shortcut, which uses the newest tap only.

    The shortcut's outputs follow the convolution's.
    """
    shortcut = F.pad(module.shortcut.weight, ((TAPS - 1) * module.shortcut.in_features, 0))
    weight = torch.cat([module.conv1.weight, shortcut])
    return Layer(weight.to(data_type), torch.cat([module.conv1.bias, module.shortcut.bias]).float())


def padded_inputs(conv: Layer) -> Layer:
    """Pad the inputs of each tap of a layer over frames of 80 bins with zeros to a power of two."""
    weight = F.pad(conv.weight.view(len(conv.weight), -1, MEL_BINS), (0, _padding(MEL_BINS)))
    return Layer(weight.flatten(1).contiguous(), conv.bias)


def padded_outputs(linear: Layer) -> Layer:
    """Pad the outputs of a layer with zeros to a power of two."""
    padding = _padding(len(linear.bias))
    return Layer(F.pad(linear.weight, (0, 0, 0, padding)), F.pad(linear.bias, (0, padding)))


def in_order(weights: Sequence[Tensor], starts: Sequence[Tensor]) -> list[Tensor]:
    """Move `weights` into one contiguous buffer, in order of use, and cut the buffer at each of `starts`.

    So each attention kernel, which has spare bandwidth, can prefetch the weights that are used until the next one. All
    weights together exceed the L2 cache, so without a prefetch every use would be a cache miss.
    """
    buffer = torch.cat([weight.flatten() for weight in weights])
    start = 0
    for weight in weights:
        weight.set_(buffer[start : start + weight.numel()].view(weight.shape))  # type: ignore[call-overload]
        start += weight.numel()
    bounds = pairwise([*(weight.storage_offset() for weight in starts), len(buffer)])
    return [buffer[begin:end] for begin, end in bounds]


def plain(linear: nn.Linear, data_type: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias for PyTorch's own linear layer."""
    return linear.weight.to(data_type), linear.bias.to(data_type)


def _padding(size: int) -> int:
    return (1 << (size - 1).bit_length()) - size
