"""Attention masks."""

import torch
from torch import Tensor

ALIGNMENT = 16  # elements; the fused attention kernels copy a mask whose rows do not start on a multiple of this


def attention_mask(lengths: Tensor, chunks: Tensor, size: int, data_type: torch.dtype, start: int = 0) -> Tensor:
    """The mask to add to attention scores, [rows, 1, size - start, size]: 0 where a query sees a key, else -inf.

    A query sees its own chunk and all earlier ones, up to the end of the row. A chunk as long as the row gives full
    attention.

    Args:
        lengths: [rows], positions of each row without padding.
        chunks: [rows], positions per chunk of each row.
        start: the first query.
    """
    device = lengths.device
    queries = torch.arange(start, size, device=device)
    keys = torch.arange(-(-size // ALIGNMENT) * ALIGNMENT, device=device)
    chunks = chunks[:, None]
    seen = torch.minimum(lengths[:, None], (queries // chunks + 1) * chunks)
    mask = torch.zeros(len(lengths), 1, size - start, len(keys), dtype=data_type, device=device)
    return mask.masked_fill_(keys >= seen[:, None, :, None], -torch.inf)[..., :size]
