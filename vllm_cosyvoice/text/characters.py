"""Tests for words, markup and invalid characters in a text."""

import re
import unicodedata

MARKUP = re.compile(r"<\|.*?\|>", re.DOTALL)


def has_markup(text: str) -> bool:
    """Whether `text` contains the model's own markup, `<|…|>`."""
    return "<|" in text and "|>" in text


def whole_characters(text: str) -> tuple[str, str]:
    """Join the surrogate pairs in `text`. Also return a half pair at its end, which belongs before the next text."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    whole = text.removesuffix(half) if half else text
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"), half


def has_words(text: str) -> bool:
    """Whether `text` contains a letter or a number outside its markup."""
    return any(unicodedata.category(character)[0] in "LN" for character in MARKUP.sub("", text))


def check_characters(text: str) -> None:
    """Raise ValueError for text with half a surrogate pair, which is valid in JSON but can't be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text contains {text[error.start]!a} at position {error.start}, which is half a character: "
            "send valid Unicode."
        ) from None
