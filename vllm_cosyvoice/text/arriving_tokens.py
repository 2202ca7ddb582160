"""Tokenizes text that is still arriving. The tokens equal those of the whole text, however it is split into pieces."""

import re
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from tokenizers import Tokenizer

from vllm_cosyvoice.text.characters import check_characters, has_words

SPACES = " \t\u3000"  # a space starts a new token: no token continues from a word into a space
NEVER_SPACED = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff]")  # kana and ideographs


async def up_to_words(pieces: AsyncIterator[str]) -> str:
    """Read `pieces` up to the first letter or number, or to the end if there is none, and return the text so far."""
    beginning = ""
    async for piece in pieces:
        beginning += piece
        if has_words(beginning):
            break
    return beginning


async def joined(beginning: str, rest: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Yield `beginning`, then `rest`."""
    yield beginning
    async for piece in rest:
        yield piece


class ArrivingText:
    """Finds the last place in the received text where a cut does not change the tokens, regardless of later text.

    The tokenizer (Qwen2's) first splits a text into words, marks and spaces, and merges byte pairs only within these.
    So a cut is safe at a certain end of such a part: before a space, or after a letter or digit that is not followed by
    another one. Chinese and Japanese have no spaces between words; a cut between two of their characters is safe if no
    vocabulary entry contains the end of the first and the beginning of the second, since then no merge can join them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._joints = {joint for entry in tokenizer.get_vocab(with_added_tokens=False) for joint in _joints(entry)}
        self._openings = tuple(
            {
                special.content[:length]
                for special in tokenizer.get_added_tokens_decoder().values()
                for length in range(1, len(special.content))
            }
        )

    async def tokens(self, pieces: AsyncIterator[str]) -> AsyncGenerator[list[int], None]:
        """Yield the tokenizer ids of the joined and stripped `pieces` as soon as they are certain.

        Raises ValueError for invalid Unicode.
        """
        buffer, started = "", False
        async for piece in pieces:
            check_characters(piece)
            checked = len(buffer)
            buffer += piece if started else piece.lstrip()
            started = started or bool(buffer)
            if cut := self._last_cut(buffer, checked):
                yield self._encode(buffer[:cut])
                buffer = buffer[cut:]
        if buffer := buffer.rstrip():
            yield self._encode(buffer)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _last_cut(self, text: str, checked: int) -> int:
        """The last safe cut, or 0. There is none within the first `checked` characters."""
        return next((cut for cut in range(len(text) - 1, max(0, checked - 1), -1) if self._safe(text, cut)), 0)

    def _safe(self, text: str, cut: int) -> bool:
        before, after = text[cut - 1], text[cut]
        if text.endswith(self._openings, 0, cut):
            return False  # it may be the beginning of a special token
        if after in SPACES:
            return not before.isspace()
        kind, next_kind = unicodedata.category(before)[0], unicodedata.category(after)
        if next_kind[0] == "M" or next_kind == "Cn":
            return False  # it may combine with the character before it
        if kind == "L" and next_kind[0] == "L":
            return bool(NEVER_SPACED.match(before) and NEVER_SPACED.match(after)) and not self._joined(before, after)
        return kind in "LN"

    def _joined(self, before: str, after: str) -> bool:
        ending, beginning = before.encode(), after.encode()
        return any(
            ending[-size:] + beginning[:length] in self._joints
            for size in range(1, len(ending) + 1)
            for length in range(1, len(beginning) + 1)
        )


def _joints(entry: str) -> Iterator[bytes]:
    """The bytes of each pair of adjacent characters in a vocabulary entry; those at its ends may be incomplete."""
    if entry.isascii():
        return
    data = bytes(BYTES[character] for character in entry)
    starts = [0, *(place for place in range(1, len(data)) if not _continues(data[place])), len(data)]
    for start, _, end in zip(starts, starts[1:], starts[2:], strict=False):
        yield data[start:end]


def _continues(byte: int) -> bool:
    """Whether `byte` is a continuation byte in UTF-8."""
    return byte & 0xC0 == 0x80


def _byte_alphabet() -> dict[str, int]:
    """The characters for bytes in a byte-level vocabulary: printable ones represent themselves, others are shifted."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = (byte for byte in range(0x100) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(shifted)}


BYTES = _byte_alphabet()
