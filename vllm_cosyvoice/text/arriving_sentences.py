"""Sentences of text that is still arriving, each as soon as it is certain to have ended."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Literal

from vllm_cosyvoice.text.abbreviations import is_abbreviation
from vllm_cosyvoice.text.characters import has_words

Granularity = Literal["sentence", "clause"]

SHORTEST = 6  # characters; "Oh!", "Mr." and "好。" are spoken with what follows

# An end is certain once the next character is there: white space where words are spaced, else any but a further mark.
SENTENCE_END = r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？；…]+[”’」』）》]*(?=[^。！？；…”’」』）》])|\n"
CLAUSE_END = r"[,;:—]+(?=\s)|[，、：]+(?=[^，、：])"
ENDS: dict[Granularity, re.Pattern[str]] = {
    "sentence": re.compile(SENTENCE_END),
    "clause": re.compile(f"{SENTENCE_END}|{CLAUSE_END}"),
}


async def sentences(pieces: AsyncIterator[str], granularity: Granularity) -> AsyncGenerator[str, None]:
    """The sentences, or clauses, of the joined `pieces`, wherever those were cut.

    Each has words; only a text without any is one sentence nevertheless.
    """
    held, found = "", False
    async for piece in pieces:
        held += piece
        while end := _first_end(held, granularity):
            yield held[:end].strip()
            held, found = held[end:], True
    if has_words(held) or (held.strip() and not found):
        yield held.strip()


def certain_ends(text: str, granularity: Granularity) -> Iterator[int]:
    """Where sentences, or clauses, end in the beginning of a text, whatever follows it."""
    for match in ENDS[granularity].finditer(text):
        if not is_abbreviation(text, match.end()):
            yield match.end()


def _first_end(text: str, granularity: Granularity) -> int:
    """Where the first sentence ends, 0 if that is not certain yet."""
    ends = certain_ends(text, granularity)
    return next((end for end in ends if len(text[:end].strip()) >= SHORTEST and has_words(text[:end])), 0)
