"""The noise that every mel begins as."""

import torch
from torch import Tensor

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.limits import MAX_FRAMES


def noise_table() -> Tensor:
    """[15000, 80] float32, the same for every request and in every process, as in the released code.

    A frame's position decides its noise, so a solve that is longer starts from the same.
    """
    noise = torch.randn([1, MEL_BINS, MAX_FRAMES], generator=torch.Generator().manual_seed(0))
    return noise[0].T.contiguous()
