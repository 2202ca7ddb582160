"""Parts of a text that no rule may change: each travels as one private-use character, and comes back at the end."""

import re
from collections.abc import Mapping

from vllm_cosyvoice.text.tokenizer import SPECIAL_TOKENS

FIRST, LAST = 0xF0000, 0xFFFFD  # a plane of Unicode that no text uses
HIDDEN = f"{chr(FIRST)}-{chr(LAST)}"  # for a set in a regular expression
HIDDEN_PART = re.compile(f"[{HIDDEN}]")
OWN_TAG = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS if not token.startswith("<|")))
UNSPACED = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")  # kana and ideographs stand without spaces between words


class HiddenParts:
    """Hides parts of one text with the methods that begin with `hide`, and puts them back with `show`."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def hide_tags(self, text: str) -> str:
        """`text` with CosyVoice's own tags hidden; what the caller wrote in private-use characters goes."""
        return OWN_TAG.sub(lambda tag: self._hide(tag.group()), HIDDEN_PART.sub("", text))

    def hide_words(self, text: str, spellings: Mapping[str, str]) -> str:
        """`text` with the words of `spellings` hidden, whose spelling will be shown in their place."""
        by_word = {word.casefold(): spelling for word, spelling in spellings.items() if word}
        if not by_word:
            return text
        longest_first = sorted(filter(None, spellings), key=len, reverse=True)
        pattern = re.compile("|".join(map(_whole_word, longest_first)), re.IGNORECASE)

        def hide(word: re.Match[str]) -> str:
            # Letters that are the same to a regular expression may differ in their case folding, as the Turkish i does.
            spelling = by_word.get(word.group().casefold())
            return word.group() if spelling is None else self._hide(spelling)

        return pattern.sub(hide, text)

    def show(self, text: str) -> str:
        """`text` with everything that was hidden."""
        return HIDDEN_PART.sub(lambda part: self._parts[ord(part.group()) - FIRST], text)

    def _hide(self, part: str) -> str:
        self._parts.append(part)
        return chr(FIRST + len(self._parts) - 1)


def _whole_word(word: str) -> str:
    before = "" if UNSPACED.match(word[0]) else r"(?<![^\W\u3041-\u30ff\u3400-\u9fff])"
    after = "" if UNSPACED.match(word[-1]) else r"(?![^\W\u3041-\u30ff\u3400-\u9fff])"
    return before + re.escape(word) + after
