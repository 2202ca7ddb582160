"""Formats tables in readable Markdown."""

import math
from collections.abc import Sequence

UNKNOWN = "–"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format `rows` under the headers `columns`, right-aligned."""
    cells = [columns, *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    lines = ["| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def spread(values: Sequence[float | None], form: str) -> str:
    """Format the mean of several runs and, if they differ, minimum and maximum: 100 (98–103)."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < len(values) or not known:
        return UNKNOWN
    mean, least, most = (format(value, form) for value in (sum(known) / len(known), min(known), max(known)))
    return mean if least == most else f"{mean} ({least}–{most})"
