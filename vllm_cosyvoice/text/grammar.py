"""wetext's grammars, which spell out numbers, dates, units and signs."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

# wetext can't read a number next to an unexpected sign ("[1]", "x=2"): it fails or returns nothing. Such a piece is
# read word by word, and such a word without its unusual signs.
FINER = (re.compile(r"(\s+)"), re.compile(r"([^\w\s$€£¥%.,:/'+-]+)"))
# wetext's time grows faster than linearly, so long text is split into pieces of at most this many characters.
PIECE = 500
PIECE_ENDS = (re.compile(r"[。！？；\n]|[.!?;][\"”]? "), re.compile(r"\s"))


@cache
def grammar(language: str) -> Any:  # noqa: ANN401 - wetext has no type hints
    """wetext's normaliser for "zh", "en" or "ja", loaded on first use (0.3 s)."""
    import wetext

    return wetext.Normalizer(lang=language)


def read_out(text: str, language: str) -> str:
    """Read `text` with wetext in `language`; parts that it can't read are unchanged."""
    return "".join(_read_piece(piece, language) for piece in _pieces(text))


def _read_piece(piece: str, language: str, finer: tuple[re.Pattern[str], ...] = FINER) -> str:
    body = piece.strip()
    if not body:
        return piece
    if spoken := _spoken(body, language):
        before, after = piece.split(body)
        return before + spoken + after
    if not finer:
        return piece
    return "".join(_read_piece(part, language, finer[1:]) for part in finer[0].split(piece))


@lru_cache(maxsize=4096)  # wetext takes about 1 ms for a number, and callers' texts have many in common
def _spoken(text: str, language: str) -> str:
    """Read `text` with wetext; return "" if wetext can't read it."""
    try:
        return str(grammar(language).normalize(text))
    except AssertionError:
        return ""


def _pieces(text: str) -> Iterator[str]:
    """Split `text` into pieces of at most `PIECE` characters, if possible at the end of a sentence or a word."""
    start = 0
    while len(text) - start > PIECE:
        window = text[start : start + PIECE]
        ends = (max((match.end() for match in pattern.finditer(window)), default=0) for pattern in PIECE_ENDS)
        end = next((end for end in ends if end), PIECE)
        yield window[:end]
        start += end
    yield text[start:]
