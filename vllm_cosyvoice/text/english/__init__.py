"""Reads English text: abbreviations, money, ranges, telephone numbers, signs.

Our rules come first, for cases that wetext reads wrongly or not at all. wetext then gets the remaining numbers, each
with the adjacent words that belong to it, and nothing else: it takes plain words for abbreviations ("Sun", "Sat",
"Bei"), and its time grows with the text. num2words spells the rest.
"""

import re
from collections.abc import Callable

from vllm_cosyvoice.text.english.addresses import ADDRESSES, spoken_address
from vllm_cosyvoice.text.english.amounts import RANGE_RULES, THOUSAND_RULES
from vllm_cosyvoice.text.english.codes import CODE_RULES, VERSION_RULES
from vllm_cosyvoice.text.english.dates import DATE_RULES
from vllm_cosyvoice.text.english.files import FILE_RULES
from vllm_cosyvoice.text.english.money import MONEY_RULES
from vllm_cosyvoice.text.english.numbers import cardinal, number
from vllm_cosyvoice.text.english.patterns import MONTH
from vllm_cosyvoice.text.english.roman import ROMAN_RULES
from vllm_cosyvoice.text.english.signs import SIGN_RULES
from vllm_cosyvoice.text.english.times import DECADE_RULES, DURATION_RULES, TIME_RULES
from vllm_cosyvoice.text.english.units import UNIT_RULES
from vllm_cosyvoice.text.english.words import WORD_RULES
from vllm_cosyvoice.text.fractions import FRACTION_SIGNS, spell_out_fractions
from vllm_cosyvoice.text.grammar import grammar, read_out
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.rules import Rules

# Parts for wetext: a date, or a number with the next word if wetext reads both together.
UNIT = (
    r"(?:[ap]m|[mbtr]illion|thousand|[kcm]?m(?:/h|²|³)?|km/h|kph|mph|[kmµ]?g|lbs?|oz|ft|m[ls]|[KMGT]i?B|[kMG]?Hz|s|min|h"
    r"|hrs?|sec|rpm)\b(?![-'’])|°?[CF]\b|%"
)
ORDINAL_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
DATE = rf"{MONTH}\.?\s+{ORDINAL_DAY}(?:,?\s+\d{{4}})?(?![\w:])|{ORDINAL_DAY}\s+{MONTH}(?:\.?,?\s+\d{{4}})?(?![\w:])"
NUMBER_PART = rf"[^\s\"“”()\[\]{{}}<>|\\*{HIDDEN}]"
NUMBER = rf"(?<!{NUMBER_PART}){NUMBER_PART}*\d{NUMBER_PART}*(?:\s+\d+/\d+|\s+(?:{UNIT}))?"
FOR_WETEXT = re.compile(rf"{DATE}|{NUMBER}|(?<!\S)[%©](?!\S)")
TRAILING_MARKS = re.compile(r"[.,:;!?'’…—–-]*$")
SMALL_NUMBER = re.compile("0|[1-9][0-9]{0,2}")  # wetext reads it as num2words does, but takes 50 times as long
DIGITS = re.compile(r"\d+")
HAS_NUMBER = re.compile(rf"[\d⁰¹²³⁴-⁹{FRACTION_SIGNS}]")

TEXT_RULES = Rules(FILE_RULES, WORD_RULES, ROMAN_RULES)
NUMBER_RULES = Rules(
    DATE_RULES,
    CODE_RULES,
    VERSION_RULES,
    DURATION_RULES,
    DECADE_RULES,
    MONEY_RULES,
    RANGE_RULES,
    TIME_RULES,
    UNIT_RULES,
    THOUSAND_RULES,
)
MARK_RULES = Rules(SIGN_RULES)


def read(line: str) -> str:
    """Convert one line of text to the English words to speak."""
    parts = ADDRESSES.split(" ".join(line.split()))
    spoken = "".join(
        _without_marks(spoken_address, part) if place % 2 else _read(part) for place, part in enumerate(parts)
    )
    return DIGITS.sub(lambda digits: cardinal(digits.group()), " ".join(spoken.split()))


def load() -> None:
    """Load the grammar, so that the first text does not wait for it."""
    grammar("en")


def _read(text: str) -> str:
    text = TEXT_RULES.apply(text)
    if HAS_NUMBER.search(text):
        text = NUMBER_RULES.apply(spell_out_fractions(text))
    return FOR_WETEXT.sub(lambda match: _without_marks(_by_wetext, match[0]), MARK_RULES.apply(text))


def _by_wetext(text: str) -> str:
    return number(text) if SMALL_NUMBER.fullmatch(text) else read_out(text, "en")


def _without_marks(reader: Callable[[str], str], text: str) -> str:
    """Read `text` with `reader`, except the marks at its end."""
    marks = TRAILING_MARKS.search(text)
    end = marks.start() if marks else len(text)
    return reader(text[:end]) + text[end:]
