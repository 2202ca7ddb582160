"""Converts written text to spoken words: spells out numbers, dates, units and abbreviations; drops markup and emoji."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from vllm_cosyvoice.text import chinese, english, european, japanese, korean, spelled_numbers
from vllm_cosyvoice.text.grammar import grammar
from vllm_cosyvoice.text.hidden import HiddenParts
from vllm_cosyvoice.text.languages import language_code, language_of
from vllm_cosyvoice.text.markdown import join, lines
from vllm_cosyvoice.text.special_tokens import SOUNDS

NO_WORDS: Mapping[str, str] = MappingProxyType({})
READERS: dict[str, Callable[[str], str]] = {
    "en": english.read,
    "ja": japanese.read,
    "ko": korean.read,
    "zh": chinese.read,
    **{code: partial(european.read, language=code) for code in european.LANGUAGES},
}
UNSPACED = ("zh", "ja")  # languages without spaces between words


def load() -> None:
    """Load the grammars for Chinese and English (over a second), so that the first text does not wait for them."""
    grammar("zh")
    english.load()


def spoken_language(text: str, language: str | None) -> str:
    """The code of the language of `text`: `language` if given, else detected.

    Raises ValueError if `language` is not a valid code.
    """
    return language_of(text) if language is None else language_code(language)


def is_unspaced(language: str) -> bool:
    """Whether the language is written without spaces between words."""
    return language in UNSPACED


def normalise(
    text: str,
    language: str | None = None,
    pronunciations: Mapping[str, str] = NO_WORDS,
    reader: Callable[[str], str] | None = None,
    special_tokens: tuple[str, ...] = SOUNDS,
) -> str:
    """Convert `text` to the words to speak, as one string; '' if there is only white space.

    `pronunciations`: words → their spelling for the model. `reader`: converts a line, instead of our own rules.
    `special_tokens`: tags that stay as they are.
    Raises ValueError if `language` is not a valid code.
    """
    code = spoken_language(text, language)
    hidden = HiddenParts(special_tokens)
    text = hidden.hide_words(hidden.hide_tags(text), pronunciations)
    marks = ("、", "，") if is_unspaced(code) else (". ", ", ")
    read = reader or READERS.get(code) or (lambda line: spelled_numbers.read(line, code))
    stop, space = ("。", "") if is_unspaced(code) else (".", " ")
    return hidden.show(join([read(line) for line in lines(text, *marks)], stop, space))
