"""Fractions in one character: "½" is "1/2", "1½" is "1 1/2"."""

import re
import unicodedata

FRACTION_SIGNS = "½¼¾⅐-⅞"  # as a range of characters
SIGN = re.compile(rf"((?<=\d))?([{FRACTION_SIGNS}])")


def spell_out_fractions(text: str) -> str:
    """Write the fractions of `text` with a slash."""
    return SIGN.sub(_with_slash, text)


def _with_slash(match: re.Match[str]) -> str:
    gap = "" if match[1] is None else " "
    return gap + unicodedata.normalize("NFKC", match[2]).replace("\u2044", "/")
