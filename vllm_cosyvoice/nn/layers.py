"""What the flow and the vocoder have in common."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)


class FrameConv(nn.Linear):
    """A convolution over frames, channels last, as one matrix product.

    `left` and `right` frames of zeros are put around the input: left = kernel - 1 makes it causal.
    The weight is [outputs, kernel · inputs], oldest frame first.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, left: int = 0, right: int = 0, bias: bool = True
    ) -> None:
        super().__init__(kernel * inputs, outputs, bias)
        self.kernel, self.left, self.right = kernel, left, right

    def forward(self, x: Tensor) -> Tensor:
        """[rows, frames, inputs] to [rows, left + frames + right - kernel + 1, outputs]."""
        x = F.pad(x, (0, 0, self.left, self.right))
        frames = x.shape[1] - self.kernel + 1
        taps = [x[:, tap : tap + frames] for tap in range(self.kernel)]
        return super().forward(torch.cat(taps, dim=-1))


def frame_conv_weight(weight: Tensor) -> Tensor:
    """A convolution's weight [outputs, inputs, kernel] as `FrameConv` (kernel 1: as `nn.Linear`) keeps it."""
    return weight.permute(0, 2, 1).flatten(1)


def load(module: Module, weights: Mapping[str, Tensor], what: str) -> Module:
    """Give `module`, made on the meta device, its weights.

    Raises:
        ValueError: names or shapes of `weights` are not those of the module.
    """
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the {what}'s weights do not fit its configuration: {error}") from error
    return module.requires_grad_(False).eval()
