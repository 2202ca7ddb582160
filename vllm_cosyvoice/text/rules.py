"""Rules that rewrite text: patterns and their replacements."""

import re
from collections.abc import Callable, Iterable

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def apply(rules: Iterable[Rule], text: str) -> str:
    """Apply `rules` to `text`, in order."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
