"""wetext's grammars, which read out numbers, dates, units and signs."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

# wetext has no reading for a number beside a sign that it does not expect there ("[1]", "x=2"): it fails, or gives
# nothing. Such a piece is read word by word, and such a word without its unusual signs.
FINER = (re.compile(r"(\s+)"), re.compile(r"([^\w\s$€£¥%.,:/'+-]+)"))
# wetext's time grows faster than the text, so long text goes through it in pieces of at most this many characters.
PIECE = 500
PIECE_ENDS = (re.compile(r"[。！？；\n]|[.!?;][\"”]? "), re.compile(r"\s"))


@cache
def grammar(language: str) -> Any:  # noqa: ANN401 - wetext has no type hints
    """wetext's normaliser for "zh", "en" or "ja", loaded when first asked for (0.3 s)."""
    import wetext

    return wetext.Normalizer(lang=language)


def read_out(text: str, language: str) -> str:
    """`text` read by wetext in `language`; what wetext can't read stays as written."""
    return "".join(_read_piece(piece, language) for piece in _pieces(text))


def _read_piece(piece: str, language: str, finer: tuple[re.Pattern[str], ...] = FINER) -> str:
    body = piece.strip()
    if not body:
        return piece
    try:
        spoken = str(grammar(language).normalize(body))
    except AssertionError:
        spoken = ""
    if spoken:
        before, after = piece.split(body)
        return before + spoken + after
    if not finer:
        return piece
    return "".join(_read_piece(part, language, finer[1:]) for part in finer[0].split(piece))


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most `PIECE` characters that end a sentence, or at least a word, where they can."""
    start = 0
    while len(text) - start > PIECE:
        window = text[start : start + PIECE]
        ends = (max((match.end() for match in pattern.finditer(window)), default=0) for pattern in PIECE_ENDS)
        end = next((end for end in ends if end), PIECE)
        yield window[:end]
        start += end
    yield text[start:]
