"""Layers and weight loading shared by the flow and the vocoder."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.nn.context import WHOLE, Context

Module = TypeVar("Module", bound=nn.Module)


class FrameConv(nn.Linear):
    """A convolution over frames, channels last, as one matrix product.

    The input is padded with `left` and `right` frames of zeros; left = kernel - 1 makes it causal. In a later piece of
    a row, the context takes the place of the zeros on the left.
    The weight is [outputs, kernel · inputs], oldest frame first.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, left: int = 0, right: int = 0, bias: bool = True
    ) -> None:
        super().__init__(kernel * inputs, outputs, bias)
        self.kernel, self.left, self.right = kernel, left, right

    def forward(self, x: Tensor, context: Context = WHOLE) -> Tensor:
        """[rows, frames, inputs] to [rows, left + frames + right - kernel + 1, outputs]."""
        x = context.extended(x, self.left)
        if self.right:
            x = F.pad(x, (0, 0, 0, self.right))
        frames = x.shape[1] - self.kernel + 1
        taps = [x[:, tap : tap + frames] for tap in range(self.kernel)]
        return super().forward(torch.cat(taps, dim=-1))


def frame_conv_weight(weight: Tensor) -> Tensor:
    """Convert a convolution's weight [outputs, inputs, kernel] to that of a `FrameConv` (kernel 1: of `nn.Linear`)."""
    return weight.permute(0, 2, 1).flatten(1)


def load(module: Module, weights: Mapping[str, Tensor], name: str) -> Module:
    """Load `weights` into `module`, which was created on the meta device. `name` is used in the error message.

    Raises:
        ValueError: the names or shapes of `weights` do not match the module.
    """
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the {name}'s weights do not fit its configuration: {error}") from error
    return module.requires_grad_(False).eval()
