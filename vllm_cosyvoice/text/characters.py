"""What a text is made of: words, markup, characters that no encoding can carry."""

import re
import unicodedata

MARKUP = re.compile(r"<\|.*?\|>", re.DOTALL)


def has_markup(text: str) -> bool:
    """Whether `text` carries the model's own markup, `<|…|>`."""
    return "<|" in text and "|>" in text


def whole_characters(text: str) -> tuple[str, str]:
    """`text` with its surrogate pairs joined, and the half of one that it ends with, to go ahead of what follows."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    whole = text.removesuffix(half) if half else text
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"), half


def has_words(text: str) -> bool:
    """Whether a letter or a number is left of `text` beside its markup."""
    return any(unicodedata.category(character)[0] in "LN" for character in MARKUP.sub("", text))


def check_characters(text: str) -> None:
    """Raise ValueError for text that no encoding can carry: JSON lets half a surrogate pair through."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text holds {text[error.start]!a} at position {error.start}, which is half a character: "
            "send valid Unicode."
        ) from None
