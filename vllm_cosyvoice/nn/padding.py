"""Which rows of different lengths to compute together."""

from collections.abc import Sequence

import torch

PADDED_FRAMES = {"cpu": 4_000, "cuda": 32_000}  # most frames of a call whose rows are padded to one length


def batches(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of `lengths` in groups to pad to their longest, longest groups first.

    No row is padded to more than twice its length, and a group of several is at most `limit` with its padding.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if groups:
            group = groups[-1]
            longest = lengths[group[0]]
            if 2 * lengths[index] >= longest and (len(group) + 1) * longest <= limit:
                group.append(index)
                continue
        groups.append([index])
    return groups


def padded_groups(lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """`batches` of rows of so many frames, for a network that pads them to one length."""
    return batches(lengths, PADDED_FRAMES[device.type])


def packed_groups(lengths: Sequence[int]) -> list[list[int]]:
    """All rows at once, for a network that needs no padding."""
    return [list(range(len(lengths)))] if lengths else []
