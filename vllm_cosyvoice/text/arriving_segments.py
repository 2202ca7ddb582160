"""Splits arriving text into segments that the model speaks well and that fit into a decoder.

A complete text is split before it is spoken. Arriving text is passed on at once, so a segment ends with the first
sentence that makes it long enough.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from vllm_cosyvoice.text.arriving_sentences import certain_ends
from vllm_cosyvoice.text.characters import has_words
from vllm_cosyvoice.text.split import FULL

FIRST_IDEOGRAPH = 0x2E80  # first code point of scripts without spaces between words
LETTERS_PER_TOKEN = 4  # in scripts below that; other characters are about one token each
LONGEST = 4 * FULL  # tokens; a segment without the end of a sentence is cut here
CONTEXT = 20  # characters before a piece that are needed to find the ends of sentences in it


async def arriving_segments(pieces: AsyncIterator[str]) -> AsyncGenerator[AsyncIterator[str], None]:
    """Split the joined `pieces` into segments of about `FULL` tokens or more. Each contains at least one word.

    A segment is yielded with its first piece; its other pieces arrive while the next segment is requested. An error of
    `pieces` is raised by the segment that is arriving.
    """
    segment: _Segment | None = None
    waiting = ""  # text after the end of a segment, without words so far
    try:
        async for piece in pieces:
            waiting += piece
            while waiting and (segment or has_words(waiting)):
                begins = segment is None
                segment = segment or _Segment()
                waiting = segment.take(waiting)
                if begins:
                    yield segment.read()
                if segment.ended:
                    segment = None
    except Exception as error:
        if segment is None:
            raise
        segment.end(error)
    else:
        if segment:
            segment.end()


class _Segment:
    def __init__(self) -> None:
        self.ended = False
        self._pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self._tail = ""
        self._tokens = 0.0

    def take(self, text: str) -> str:
        """Add the part of `text` that belongs to this segment, and return the rest."""
        cut = self._end_in(text)
        piece, rest = (text, "") if cut is None else (text[:cut], text[cut:])
        self._tokens += _tokens(piece)
        self._tail = (self._tail + piece)[-CONTEXT:]
        if piece:
            self._pieces.put_nowait(piece)
        if cut is not None:
            self.end()
        return rest

    def end(self, error: Exception | None = None) -> None:
        """End the segment, with `error` if reading its text failed."""
        self.ended = True
        self._pieces.put_nowait(error)

    async def read(self) -> AsyncIterator[str]:
        """Yield the pieces as they arrive."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def _end_in(self, text: str) -> int | None:
        """The end of this segment in `text`, its next text; None if it does not end there."""
        start = len(self._tail)
        for end in certain_ends(self._tail + text, "sentence"):
            if end >= start and self._tokens + _tokens(text[: end - start]) >= FULL:
                return end - start
        if self._tokens + _tokens(text) < LONGEST:
            return None
        limit = next((cut for cut in range(len(text)) if self._tokens + _tokens(text[: cut + 1]) > LONGEST), len(text))
        space = text.rfind(" ", 0, limit)
        return space if space > 0 else limit


def _tokens(text: str) -> float:
    """Estimate the number of tokens of `text`."""
    letters = sum(character.isalpha() and ord(character) < FIRST_IDEOGRAPH for character in text)
    return letters / LETTERS_PER_TOKEN + len(text) - letters - text.count(" ")
