"""Splits arriving text into sentences, each as soon as its end is certain."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Literal

from vllm_cosyvoice.text.abbreviations import is_abbreviation
from vllm_cosyvoice.text.characters import has_words

Granularity = Literal["sentence", "clause"]

SHORTEST = 6  # characters; "Oh!", "Mr." and "好。" are spoken together with the next text

# An end is certain once the next character has arrived: white space in languages with spaces between words, else any
# character except another mark.
SENTENCE_END = r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？；…]+[”’」』）》]*(?=[^。！？；…”’」』）》])|\n"
CLAUSE_END = r"[,;:—]+(?=\s)|[，、：]+(?=[^，、：])"
ENDS: dict[Granularity, re.Pattern[str]] = {
    "sentence": re.compile(SENTENCE_END),
    "clause": re.compile(f"{SENTENCE_END}|{CLAUSE_END}"),
}


async def sentences(pieces: AsyncIterator[str], granularity: Granularity) -> AsyncGenerator[str, None]:
    """Yield the sentences, or clauses, of the joined `pieces`.

    Each contains at least one word. Only a text without words is yielded as one sentence.
    """
    buffer, found = "", False
    async for piece in pieces:
        buffer += piece
        while end := _first_end(buffer, granularity):
            yield buffer[:end].strip()
            buffer, found = buffer[end:], True
    if has_words(buffer) or (buffer.strip() and not found):
        yield buffer.strip()


def certain_ends(text: str, granularity: Granularity) -> Iterator[int]:
    """The ends of sentences, or clauses, in the beginning of a text that no later text can change."""
    for match in ENDS[granularity].finditer(text):
        if not is_abbreviation(text, match.end()):
            yield match.end()


def _first_end(text: str, granularity: Granularity) -> int:
    """The end of the first sentence, or 0 if it is not certain yet."""
    ends = certain_ends(text, granularity)
    return next((end for end in ends if len(text[:end].strip()) >= SHORTEST and has_words(text[:end])), 0)
