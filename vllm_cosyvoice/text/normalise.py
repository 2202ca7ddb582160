"""Written text to spoken words: numbers, dates, units and abbreviations read out.

wetext does the reading, inflect the digits it leaves in English. Text with any Chinese character is Chinese.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

CHINESE = re.compile(r"[\u4e00-\u9fff]")
DIGITS = re.compile(r"\d+")
# A space stays in Chinese text only between two ASCII characters that are not spaces themselves.
LOOSE_SPACE = re.compile(r"(?<![\x00-\x1f\x21-\x7f]) | (?![\x00-\x1f\x21-\x7f])")
TRAILING_COMMAS = re.compile(r"[，,、]+$")
WRITTEN_MARKS = str.maketrans({"²": "平方", "³": "立方", ".": "。"})
BRACKETS = str.maketrans("", "", "（）【】`")

# wetext has no reading for a number beside a sign that it does not expect there ("[1]", "x=2", "3🙂"): it fails, or
# gives nothing. Such a piece is read word by word, and such a word without its unusual signs.
FINER = (re.compile(r"(\s+)"), re.compile(r"([^\w\s$€£¥%.,:/'+-]+)"))
# wetext's time grows faster than the text, so long text goes through it in pieces of at most this many characters.
PIECE = 500
PIECE_ENDS = (re.compile(r"[。！？；\n]|[.!?;][\"”]? "), re.compile(r"\s"))


def is_chinese(text: str) -> bool:
    """Whether `text` is read as Chinese: it has a character of U+4E00 … U+9FFF."""
    return CHINESE.search(text) is not None


def normalise(text: str) -> str:
    """The words to speak for `text`, in one piece; '' for nothing but white space."""
    text = text.strip()
    return _chinese(text) if is_chinese(text) else _english(text)


@cache
def grammar(language: str) -> Any:  # noqa: ANN401 - wetext has no type hints
    """wetext's normaliser for "zh" or "en", loaded when first asked for (0.3 s)."""
    import wetext

    return wetext.Normalizer(lang=language)


@cache
def number_speller() -> Any:  # noqa: ANN401 - an `inflect.engine`; importing inflect takes over a second
    """inflect's engine, which spells English numbers."""
    import inflect

    return inflect.engine()


def _chinese(text: str) -> str:
    text = _read_out(text, "zh").replace("\r", "").replace("\n", "")
    text = LOOSE_SPACE.sub("", text).translate(WRITTEN_MARKS)
    text = text.replace(" - ", "，").translate(BRACKETS).replace("——", " ")
    return TRAILING_COMMAS.sub("。", text)


def _english(text: str) -> str:
    # wetext fails on two white space characters in a row
    text = _read_out(" ".join(text.split()), "en")
    return DIGITS.sub(lambda digits: _spell(digits.group()), text)


def _spell(digits: str) -> str:
    longest = 36  # inflect names no number of more digits; such a run is read digit by digit
    if len(digits) <= longest:
        return str(number_speller().number_to_words(digits))
    return " ".join(str(number_speller().number_to_words(digit)) for digit in digits)


def _read_out(text: str, language: str) -> str:
    return "".join(_read_out_piece(piece, language) for piece in _pieces(text))


def _read_out_piece(piece: str, language: str, finer: tuple[re.Pattern[str], ...] = FINER) -> str:
    """`piece` read by wetext, with the white space around it kept; what wetext can't read at all stays as written."""
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
    return "".join(_read_out_piece(part, language, finer[1:]) for part in finer[0].split(piece))


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
