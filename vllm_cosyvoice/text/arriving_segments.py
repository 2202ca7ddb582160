"""Text that is still arriving, in segments that the model speaks well and a decoder takes.

A known text is split before it is spoken. Arriving text is passed on at once, so a segment ends where a sentence does,
once it is long enough.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from vllm_cosyvoice.text.arriving_sentences import certain_ends
from vllm_cosyvoice.text.characters import has_words
from vllm_cosyvoice.text.split import FULL

FIRST_IDEOGRAPH = 0x2E80  # from here on scripts put no spaces between words
LETTERS_PER_TOKEN = 4  # of the scripts before; other characters are about a token each
LONGEST = 4 * FULL  # tokens: a segment in which no sentence ends is cut here
CONTEXT = 20  # characters ahead of a piece that tell whether a sentence ends in it


async def arriving_segments(pieces: AsyncIterator[str]) -> AsyncGenerator[AsyncIterator[str], None]:
    """The joined `pieces` in segments of about `FULL` tokens or more, each of which has something to speak.

    A segment is yielded with its first piece; its other pieces come while the next segment is asked for. An error of
    `pieces` is raised by the segment that is arriving.
    """
    segment: _Segment | None = None
    waiting = ""  # has no words yet: what is behind the end of a segment
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
        """Add what belongs to this segment; returns the rest."""
        cut = self._end_in(text)
        mine, rest = (text, "") if cut is None else (text[:cut], text[cut:])
        self._tokens += _tokens(mine)
        self._tail = (self._tail + mine)[-CONTEXT:]
        if mine:
            self._pieces.put_nowait(mine)
        if cut is not None:
            self.end()
        return rest

    def end(self, error: Exception | None = None) -> None:
        """No more text, as it is complete or `error` has ended it."""
        self.ended = True
        self._pieces.put_nowait(error)

    async def read(self) -> AsyncIterator[str]:
        """The pieces, as they come."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def _end_in(self, text: str) -> int | None:
        """Where this segment ends in `text`, which comes next; None: not in it."""
        ahead = len(self._tail)
        for end in certain_ends(self._tail + text, "sentence"):
            if end >= ahead and self._tokens + _tokens(text[: end - ahead]) >= FULL:
                return end - ahead
        if self._tokens + _tokens(text) < LONGEST:
            return None
        fits = next((cut for cut in range(len(text)) if self._tokens + _tokens(text[: cut + 1]) > LONGEST), len(text))
        space = text.rfind(" ", 0, fits)
        return space if space > 0 else fits


def _tokens(text: str) -> float:
    """About how many tokens `text` has."""
    letters = sum(character.isalpha() and ord(character) < FIRST_IDEOGRAPH for character in text)
    return letters / LETTERS_PER_TOKEN + len(text) - letters - text.count(" ")
