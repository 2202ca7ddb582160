"""English dates that wetext does not read."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, ordinal, year
from vllm_cosyvoice.text.english.patterns import DASH, MONTH, one_of
from vllm_cosyvoice.text.english.words import DAYS, MONTHS
from vllm_cosyvoice.text.rules import Rule

DAY = r"(0?[1-9]|[12]\d|3[01])"
MONTH_NUMBER = r"(0?[1-9]|1[0-2])"
ALONE, ENDED = r"(?<![\w.,/-])", r"(?![\w/-]|[.,]\d)"
THIS_CENTURY = 30  # a year of two digits up to this one is after 2000


def _month(written: str) -> str:
    return MONTHS.get(written, written)


def _short_year(match: re.Match[str]) -> str:
    century = "20" if int(match[3]) <= THIS_CENTURY else "19"
    return f"{match[1]}/{match[2]}/{century}{match[3]}"


def _days(match: re.Match[str]) -> str:
    second = f"{_month(match[3])} " if match[3] else ""
    return f"{_month(match[1])} {ordinal(match[2])} to {second}{ordinal(match[4])}"


DATE_RULES: list[Rule] = [
    # A time stamp: 2024-12-25T10:30:00Z.
    (
        re.compile(r"(?<![\w-])(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?(?!\w)"),
        lambda match: f"{match[1]} {match[2]}{' UTC' if match[3] == 'Z' else ''}",
    ),
    (re.compile(rf"{ALONE}((?:19|20)\d\d)\.(0[1-9]|1[0-2])\.{DAY}{ENDED}"), r"\1-\2-\3"),
    (re.compile(rf"{ALONE}{DAY}\.{MONTH_NUMBER}\.((?:19|20)\d\d){ENDED}"), r"\3-\2-\1"),
    (re.compile(rf"{ALONE}{MONTH_NUMBER}/{DAY}/(\d\d){ENDED}"), _short_year),
    (
        re.compile(
            rf"\b({one_of(DAYS)})\b\.?(?=,? (?:{MONTH}\.? )?\d{{1,2}}(?:st|nd|rd|th|\s?[ap]m)?\b)"
            rf"(?!,? \d+ (?!{MONTH}|[ap]m\b))",
        ),
        lambda m: DAYS[m[1]],
    ),
    (
        re.compile(
            rf"\b({MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?{DASH}(?:({MONTH})\.? )?(\d{{1,2}})(?:st|nd|rd|th)?(?![\w:-])"
        ),
        _days,
    ),
    (
        re.compile(r"\bMay (\d{1,2})(?:st|nd|rd|th)?\b(?![:%-]|,? \d{4}|\s(?!is\b|was\b|has\b)(?:people|[a-z]+s)\b)"),
        lambda match: f"May {ordinal(match[1])}",
    ),
    (
        re.compile(r"(?<![\w.,-])(?:the )?(\d{1,2})(?:st|nd|rd|th)? May\b(?!,? \d{4})"),
        lambda m: f"the {ordinal(m[1])} of May",
    ),
    (re.compile(r"\bFY ?((?:19|20)\d\d)\b"), lambda match: f"FY {year(match[1])}"),
    (
        re.compile(rf"(?<![\w.,/-])(\d{{1,2}})(?:st|nd|rd|th)?{DASH}(?=\d{{1,2}}(?:st|nd|rd|th)? {MONTH})"),
        lambda match: f"the {ordinal(match[1])} to ",
    ),
    (re.compile(r"(?<=Q[1-4])['’](?=\d\d\b)"), " "),
    (
        re.compile(r"(?<!\S)['’‘](\d\d)[–-]['’‘]?(\d\d)(?![\w'’-])"),
        lambda match: f"{cardinal(match[1])} to {cardinal(match[2])}",
    ),
    # '98 is a year; the apostrophe would be read as a quote.
    (
        re.compile(r"(?<!\S)['’‘](\d)(\d)(?![\w'’-])"),
        lambda match: f"oh {cardinal(match[2])}" if match[1] == "0" else cardinal(match[1] + match[2]),
    ),
]
