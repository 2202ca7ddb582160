"""Which rows of different lengths to compute together."""

from collections.abc import Sequence


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
