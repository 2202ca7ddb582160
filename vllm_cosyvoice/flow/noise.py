"""The initial noise of every mel."""

import torch
from torch import Tensor

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.limits import MAX_FRAMES


def noise_table() -> Tensor:
    """The noise [15000, 80] float32, the same for every request and in every process, as in the released code.

    A frame's noise depends only on its position, so a longer solve starts from the same noise.
    """
    noise = torch.randn([1, MEL_BINS, MAX_FRAMES], generator=torch.Generator().manual_seed(0))
    return noise[0].T.contiguous()
