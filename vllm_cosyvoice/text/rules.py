"""Rules that rewrite text: patterns and their replacements."""

import re
from collections.abc import Callable, Iterable

from vllm_cosyvoice.text.needs import Content, needs

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


class Rules:
    """Rules that are applied in their order. Most texts concern few of them, so the others are skipped."""

    def __init__(self, *groups: Iterable[Rule]) -> None:
        self._rules = [(needs(pattern), pattern, replacement) for rules in groups for pattern, replacement in rules]

    def apply(self, text: str) -> str:
        """Apply the rules to `text`."""
        content = Content(text)
        for needed, pattern, replacement in self._rules:
            if needed.are_met(content):
                changed = pattern.sub(replacement, text)
                if changed != text:
                    text, content = changed, Content(changed)
        return text
