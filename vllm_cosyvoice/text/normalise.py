"""Written text to spoken words: numbers, dates, units and abbreviations read out, markup and pictures left out."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from vllm_cosyvoice.text import chinese, english, japanese, korean, spelled_numbers
from vllm_cosyvoice.text.grammar import grammar
from vllm_cosyvoice.text.hidden import HiddenParts
from vllm_cosyvoice.text.languages import language_code, language_of
from vllm_cosyvoice.text.markdown import join, lines

NO_WORDS: Mapping[str, str] = MappingProxyType({})
READERS: dict[str, Callable[[str], str]] = {
    "en": english.read,
    "ja": japanese.read,
    "ko": korean.read,
    "zh": chinese.read,
}
UNSPACED = ("zh", "ja")  # languages that put no spaces between words


def load() -> None:
    """Load what reading Chinese and English needs (over a second), so that the first text does not wait for it."""
    grammar("zh")
    english.load()


def spoken_language(text: str, language: str | None) -> str:
    """The code of the language that `text` is read in: `language` where given, else by script and words.

    Raises ValueError for a `language` that is no code.
    """
    return language_of(text) if language is None else language_code(language)


def is_unspaced(language: str) -> bool:
    """Whether a language of that code is written without spaces between words."""
    return language in UNSPACED


def normalise(
    text: str,
    language: str | None = None,
    pronunciations: Mapping[str, str] = NO_WORDS,
    reader: Callable[[str], str] | None = None,
) -> str:
    """The words to speak for `text`, in one piece; '' for nothing but white space.

    `pronunciations`: words → how to spell them for the model. `reader`: what reads a line, in place of our own rules.
    Raises ValueError for a `language` that is no code.
    """
    code = spoken_language(text, language)
    hidden = HiddenParts()
    text = hidden.hide_words(hidden.hide_tags(text), pronunciations)
    marks = ("、", "，") if is_unspaced(code) else (". ", ", ")
    read = reader or READERS.get(code) or (lambda line: spelled_numbers.read(line, code))
    stop, space = ("。", "") if is_unspaced(code) else (".", " ")
    return hidden.show(join([read(line) for line in lines(text, *marks)], stop, space))
