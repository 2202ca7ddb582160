"""Groups rows of different lengths into calls."""

from collections.abc import Sequence

import torch

PADDED_FRAMES = {"cpu": 4_000, "cuda": 32_000}  # most frames per call, including padding


def batches(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Group the indices of `lengths` for padding to the longest of each group, longest groups first.

    No row is padded to more than twice its length, and a group of several rows has at most `limit` frames with padding.
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
    """Group rows by `batches`, for a network that pads them to equal length."""
    return batches(lengths, PADDED_FRAMES[device.type])


def packed_groups(lengths: Sequence[int]) -> list[list[int]]:
    """Put all rows into one group, for a network that needs no padding."""
    return [list(range(len(lengths)))] if lengths else []
