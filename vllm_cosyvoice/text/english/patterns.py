"""Patterns shared by several groups of English rules."""

import re
from collections.abc import Iterable

from vllm_cosyvoice.text.hidden import HIDDEN

MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\b"
)
CAPITAL = rf"(?=\s+[A-Z{HIDDEN}\"“]|[\"”’)]*$)"  # before a possible start of a sentence or the end of the text
SENTENCE_START = (
    r"(?=\s+(?:The|An?|It|He|She|We|They|You|I|In|On|At|But|And|So|This|That|There|My|His|Her|Our|Their|What|When)\b)"
)
DASH = r"\s?[–—~～‐-]\s?"
AMOUNT = r"\d+(?:,\d{3})*(?:\.\d+)?"
LENGTH_UNIT = r"(?:[kcm]?m|ft|in|px)\b"
ALONE = r"(?<![\w.,:/$€£¥^-])"  # before a number that does not continue the preceding text
FUNCTION_WORD = (
    r"(?:and|or|of|in|on|at|to|for|from|by|is|was|are|per|each|away|ago|long|tall|high|wide|deep|more|less|off|if)\b"
)
ENDED = r"(?![\w/:-]|[.,:]\d)"  # after a number that does not continue in the following text


def one_of(words: Iterable[str]) -> str:
    """A pattern for any of `words`, longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
