"""From a caller's text to segments and tokens."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from vllm_cosyvoice.segment import MOST_TEXT
from vllm_cosyvoice.text.arriving import ArrivingText
from vllm_cosyvoice.text.characters import check_characters, has_markup, has_words
from vllm_cosyvoice.text.normalise import grammar, is_chinese, normalise, number_speller
from vllm_cosyvoice.text.split import cut, split
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.text.ttsfrd import load_ttsfrd


class TextFrontEnd:
    """Normalises, splits and tokenizes for one model. Its methods may run in several threads at once."""

    def __init__(self, tokenizer: Path) -> None:
        """Load everything, so that the first request waits for nothing. `tokenizer`: the tokenizer's directory."""
        self._tokenizer = load_tokenizer(tokenizer)
        ttsfrd = load_ttsfrd(tokenizer.parent)
        if ttsfrd is None:
            grammar("zh")
            grammar("en")
            number_speller()
        self._normalise = ttsfrd or normalise

    @cached_property
    def arriving(self) -> ArrivingText:
        """For text that comes in pieces."""
        return ArrivingText(self._tokenizer)

    def segments(self, text: str) -> list[str]:
        """`text` normalised and split into pieces to speak one after the other.

        Raises ValueError when there is nothing to speak.
        """
        return segments(text, self._normalise, lambda part: len(self.tokens(part)))

    def normalise(self, text: str) -> str:
        """`text` as it is put in a prompt: normalised, not split."""
        check_characters(text)
        return text if has_markup(text) else self._normalise(text)

    def tokens(self, text: str) -> list[int]:
        """Tokenizer ids of `text` as it stands; special tokens in it are encoded as such."""
        check_characters(text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def segments(text: str, normalise: Callable[[str], str], length: Callable[[str], int]) -> list[str]:
    """Segments of `text`, of at most `MOST_TEXT` tokens each; `length` counts tokens.

    Text with markup is not normalised, and only cut where it is too long.

    Raises ValueError when there is nothing to speak.
    """
    check_characters(text)
    if has_markup(text):
        pieces = [text]
    elif is_chinese(text):
        pieces = split(normalise(text), chinese=True, length=len)
    else:
        pieces = split(normalise(text), chinese=False, length=length)
    spoken = [part for piece in pieces for part in cut(piece, MOST_TEXT, length) if has_words(part)]
    if not spoken:
        raise ValueError("The text has nothing to speak: send at least one word or number.")
    return spoken
