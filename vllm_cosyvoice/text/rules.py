"""Rules that rewrite text: what to look for, and what to say instead."""

import re
from collections.abc import Callable, Iterable

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def apply(rules: Iterable[Rule], text: str) -> str:
    """`text` after each of `rules`, in their order."""
    for pattern, spoken in rules:
        text = pattern.sub(spoken, text)
    return text
