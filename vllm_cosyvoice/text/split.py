"""Splits text into segments that are short enough for the language model to speak well."""

import re
from collections.abc import Callable

from vllm_cosyvoice.text.abbreviations import is_abbreviation
from vllm_cosyvoice.text.characters import MARKUP

CHINESE_STOPS = "。？！；：、.?!;"
ENGLISH_STOPS = ".?!;:"
CLOSING = '"”’」』'  # quotes that may follow the last stop
INSIDE_WORD = r"(?<=[A-Za-z0-9])[.:](?=[A-Za-z0-9])"

# In characters (Chinese) or tokens (English):
FULL = 80  # a sentence that would make a segment longer than this starts a new one …
ENOUGH = 60  # … if the segment is longer than this without it
SHORT = 20  # a last segment shorter than this is joined with the previous one
LONG = 120  # a sentence longer than this is split into parts of at most `FULL`

# Where long sentences are split, in order of preference: after a stop, after a comma, between words, anywhere.
PLACES = tuple(
    re.compile(place) for place in (rf"(?<=[{re.escape(CHINESE_STOPS)}])", r"(?<=[,，])", r"(?<=\s)(?=\S)", "")
)
MARK = re.compile(rf"{MARKUP.pattern}|<[^<>]*>|\[[^\[\]]*\]", MARKUP.flags)  # the model's own marks, never split


def split(text: str, chinese: bool, length: Callable[[str], int]) -> list[str]:
    """Split `text` into segments of whole sentences; `length` measures a text in the units of the limits above.

    Only sentences longer than `LONG` are split, so a segment may be longer than `FULL`. Only stops that follow a stop
    are lost.
    """
    if not text:
        return []
    stops = CHINESE_STOPS if chinese else ENGLISH_STOPS
    if text.rstrip(CLOSING)[-1:] not in stops:
        text += "。" if chinese else "."
    parts = (
        cut(sentence, FULL, length) if _exceeds(sentence, LONG, length) else [sentence]
        for sentence in sentences(text, stops)
    )
    return pack([part for sentence in parts for part in sentence], length)


def sentences(text: str, stops: str) -> list[str]:
    """Split `text`, which must end with a stop, after every stop and its closing quote, if any.

    Of several stops in a row, the first is kept, and so are quotes between them. A mark between two letters or digits
    ("2.5", "10:30", "www.example.com") and the dot of an abbreviation are not stops.
    """
    stop = f"(?!{INSIDE_WORD})[{re.escape(stops)}]"
    end = re.compile(rf'({stop}["”]?)((?:{stop}["”]?)*)')
    parts: list[str] = []
    opening, start = "", 0
    for match in end.finditer(text):
        if match[0] == "." and match.end() < len(text) and is_abbreviation(text, match.end()):
            continue
        body = opening + text[start : match.start()]
        further_quotes = re.sub(stop, "", match[2])
        if body:
            parts.append(body + match[1] + further_quotes)
            opening = ""
        else:  # a stop before any text ends no sentence, so a quote after it opens the first one
            opening = match[1][1:] + further_quotes
        start = match.end()
    return parts


def pack(sentences: list[str], length: Callable[[str], int]) -> list[str]:
    """Join sentences to segments longer than `ENOUGH`, and of at most `FULL` if the sentences allow it."""
    segments: list[str] = []
    current = ""
    for sentence in sentences:
        if _exceeds(current, ENOUGH, length) and _exceeds(current + sentence, FULL, length):
            segments.append(current)
            current = ""
        current += sentence
    if segments and length(current) < SHORT:
        segments[-1] += current
    elif current:
        segments.append(current)
    return segments


def cut(text: str, most: int, length: Callable[[str], int]) -> list[str]:
    """Split `text` into parts of about equal `length`, of at most `most`, at the least noticeable places."""
    if len(text) < 2 or not _exceeds(text, most, length):
        return [text]
    inside = {place for mark in MARK.finditer(text) for place in range(mark.start() + 1, mark.end())}
    for pattern in PLACES:
        places = {match.start() for match in pattern.finditer(text)} - inside - {0, len(text)}
        middle = min(places, key=lambda place: abs(place - len(text) // 2), default=0)
        if min(middle, len(text) - middle) >= len(text) // 4:  # otherwise one part would be hardly shorter
            return [part for half in (text[:middle], text[middle:]) for part in cut(half, most, length)]
    return [text]


def _exceeds(text: str, most: int, length: Callable[[str], int]) -> bool:
    """Whether `length` of `text` is over `most`. ASCII text with no more characters than that has no more tokens."""
    return not (text.isascii() and len(text) <= most) and length(text) > most
