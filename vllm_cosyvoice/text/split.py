"""Normalised text in segments short enough for the language model to speak well."""

import re
from collections.abc import Callable

CHINESE_STOPS = "。？！；：、.?!;"
ENGLISH_STOPS = ".?!;:"

# in characters (Chinese) or tokens (English)
FULL = 80  # a segment this long takes no further sentence …
ENOUGH = 60  # … if it has more than this without it
SHORT = 20  # a last segment shorter than this joins the one before


def split(text: str, chinese: bool, length: Callable[[str], int]) -> list[str]:
    """Segments of whole sentences; `length` measures a text in the units of the limits above.

    A sentence is never cut, so a segment may be longer than `FULL`. Nothing is lost but stops that follow a stop.
    """
    if not text:
        return []
    stops = CHINESE_STOPS if chinese else ENGLISH_STOPS
    if text[-1] not in stops:
        text += "。" if chinese else "."
    return pack(sentences(text, stops), length)


def sentences(text: str, stops: str) -> list[str]:
    """`text`, which ends with a stop, cut behind every stop and the closing quote that may follow it.

    Of several stops in a row the first stays; quotes between them stay too.
    """
    stop = f"[{re.escape(stops)}]"
    end = re.compile(rf'({stop}["”]?)((?:{stop}["”]?)*)')
    found: list[str] = []
    opening, start = "", 0
    for match in end.finditer(text):
        body = opening + text[start : match.start()]
        further_quotes = re.sub(stop, "", match[2])
        if body:
            found.append(body + match[1] + further_quotes)
            opening = ""
        else:  # a stop before any text ends nothing, so a quote after it opens the first sentence
            opening = match[1][1:] + further_quotes
        start = match.end()
    return found


def pack(sentences: list[str], length: Callable[[str], int]) -> list[str]:
    """Sentences joined to segments of more than `ENOUGH`, and of at most `FULL` where the sentences allow it."""
    segments: list[str] = []
    current = ""
    for sentence in sentences:
        if length(current) > ENOUGH and length(current + sentence) > FULL:
            segments.append(current)
            current = ""
        current += sentence
    if segments and length(current) < SHORT:
        segments[-1] += current
    elif current:
        segments.append(current)
    return segments
