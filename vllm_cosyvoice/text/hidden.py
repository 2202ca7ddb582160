"""Protects parts of a text from the rules: each is replaced by one private-use character and restored at the end."""

import re
from collections.abc import Mapping
from functools import cache

from vllm_cosyvoice.text.special_tokens import SOUNDS

FIRST, LAST = 0xF0000, 0xFFFFD  # a private-use plane of Unicode
HIDDEN = f"{chr(FIRST)}-{chr(LAST)}"  # for a character set in a regular expression
HIDDEN_PART = re.compile(f"[{HIDDEN}]")
UNSPACED = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")  # kana and ideographs, which have no spaces between words


class HiddenParts:
    """Hides parts of one text with the methods `hide_*`, and restores them with `show`."""

    def __init__(self, special_tokens: tuple[str, ...] = SOUNDS) -> None:
        """`special_tokens`: of the model's tokenizer, which may stand in a text as tags."""
        self._tag = _tag(special_tokens)
        self._parts: list[str] = []

    def hide_tags(self, text: str) -> str:
        """Hide the model's own tags in `text`, and remove private-use characters written by the caller."""
        return self._tag.sub(lambda tag: self._hide(tag.group()), HIDDEN_PART.sub("", text))

    def hide_words(self, text: str, spellings: Mapping[str, str]) -> str:
        """Hide the words of `spellings` in `text`; `show` will insert their spellings."""
        by_word = {word.casefold(): spelling for word, spelling in spellings.items() if word}
        if not by_word:
            return text
        longest_first = sorted(filter(None, spellings), key=len, reverse=True)
        pattern = re.compile("|".join(map(_whole_word, longest_first)), re.IGNORECASE)

        def hide(word: re.Match[str]) -> str:
            # Letters that match in a regular expression may differ in case folding, for example the Turkish i.
            spelling = by_word.get(word.group().casefold())
            return word.group() if spelling is None else self._hide(spelling)

        return pattern.sub(hide, text)

    def show(self, text: str) -> str:
        """Restore all hidden parts of `text`."""
        return HIDDEN_PART.sub(lambda part: self._parts[ord(part.group()) - FIRST], text)

    def _hide(self, part: str) -> str:
        self._parts.append(part)
        return chr(FIRST + len(self._parts) - 1)


@cache
def _tag(special_tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(token) for token in special_tokens if not token.startswith("<|")))


def _whole_word(word: str) -> str:
    before = "" if UNSPACED.match(word[0]) else r"(?<![^\W\u3041-\u30ff\u3400-\u9fff])"
    after = "" if UNSPACED.match(word[-1]) else r"(?![^\W\u3041-\u30ff\u3400-\u9fff])"
    return before + re.escape(word) + after
