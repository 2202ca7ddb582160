"""English ranges, slashes and thousands."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number, ordinal, plural, year
from vllm_cosyvoice.text.english.patterns import AMOUNT, DASH, LENGTH_UNIT
from vllm_cosyvoice.text.rules import Rule


def _season(match: re.Match[str]) -> str:
    """Two years, the second one maybe short: "2023/24"."""
    if (int(match[1]) + 1) % 100 != int(match[2]) % 100:
        return match[0]
    return f"{year(match[1])} {year(match[2]) if len(match[2]) == 4 else cardinal(match[2])}"


FRACTIONS_OF = {2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 32, 64}


def _ordinal_fraction(match: re.Match[str]) -> str:
    """A fraction with the ending of its denominator: "1/48th"."""
    if int(match[2]) in FRACTIONS_OF:
        return f"{match[1]}/{match[2]}"
    return f"{cardinal(match[1])} {ordinal(match[2])}{match[3]}"


# Ranges, and slashes that are not fractions.
RANGE_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,-])(\d{2}[05]) ?([CF])\b"), r"\1°\2"),  # of an oven
    (re.compile(r"(?<![\w/.])(\d{2,3})/(\d{2,3})(?=\s?mmHg)"), r"\1 over \2"),
    (re.compile(r"(?<=°[CF])\s?/\s?(?=\d)"), " or "),
    (re.compile(rf"(?<![\w.,])-({AMOUNT})\s?[~～–—]\s?(?=-?\d)"), r"-\1 to "),
    (re.compile(r"(?<![\w.,/-])(\d{1,2})-(?=\d{1,2}/\d{1,2}(?![\w/-]))"), r"\1 "),  # 1-1/2 cups
    (
        re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?)e([+-]?)(\d{1,3})(?![\w.]*\d)"),
        lambda match: (
            f"{match[1]} times ten to the {'minus ' + cardinal(match[3]) if match[2] == '-' else ordinal(match[3])}"
        ),
    ),
    (re.compile(rf"(?<=\d)\s?({LENGTH_UNIT})\s?[x×]\s?(?=\d)"), r"\1 by "),
    (re.compile(r"(?<=\d) / (?=\d)"), " divided by "),
    (re.compile(r"(?<=\d)x(\d+)s\b"), lambda match: f" by {plural(cardinal(match[1]))}"),
    (re.compile(r"(?<=\d)(?<!\b0)x(?=\d)"), " by "),
    (re.compile(r"(?<=\d[A-Za-z])@(?=\d)"), " at "),
    (re.compile(r"(?<=\d)!(?=\s*[=+*/×])"), " factorial"),
    (re.compile(r"(?<=\d)x(?=\s*[+=])|(?<=[+=]\s\d)x\b|(?<=[+=]\d)x\b"), " x"),
    (re.compile(r"(?<![\w.,])(\d{1,3}(?:\.\d+)?)[xX](?=[\s.,;:!?)]|$)(?!\s*[+=])"), r"\1 times"),
    (re.compile(r"(?<![\d/])24/7/365(?![\d/])"), "twenty four seven three sixty five"),
    (
        re.compile(r"(?<![\w/.,])(\d+\.\d+)/(\d+)(?![\w/.])"),
        lambda match: f"{number(match[1])} out of {cardinal(match[2])}",
    ),
    (
        re.compile(r"\b((?:[Oo]n|[Uu]ntil|[Ss]ince|[A-Z][a-z]+day,?) )(1[0-2]|[1-9])/(3[01]|[12]\d|[1-9])(?![\w/])"),
        lambda match: f"{match[1]}{cardinal(match[2])} {cardinal(match[3])}",
    ),
    (re.compile(r"(?<![\w.,/:-])(\d+)\s?-\s?(\d+)(?=\s?=)"), r"\1 minus \2"),
    (re.compile(rf"(?<![\w.,/:-])({AMOUNT})%?{DASH}({AMOUNT}%)"), r"\1 to \2"),
    (
        re.compile(
            rf"(?<![\w.,/:^-])(\d+(?::\d\d)?(?:\s?[ap]m)?){DASH}(\d+(?::\d\d)?(?:\s?[ap]m)?)(?![\d:/-]*\d)",
            re.IGNORECASE,
        ),
        lambda match: f"{match[1]} {match[2]}" if match[1] == match[2] else f"{match[1]} to {match[2]}",
    ),
    (re.compile(rf"(?<![\w/:-])({AMOUNT}){DASH}({AMOUNT})(?![\w/:-]*\d)"), r"\1 to \2"),
    (re.compile(r"(?<=[A-Za-z]) ?[–~] ?(?=\d)|(?<=\d[%°]) ?[–~] ?(?=\d)|(?<=\d[CFkmg]) ?[–~] ?(?=\d)"), " to "),
    (re.compile(r"(?<![\w~])~\s?(?=\d)"), "about "),
    (re.compile(r"\bQ([1-4])[–-]Q?([1-4])\b"), r"Q\1 to Q\2"),
    (re.compile(r"(?<=/\d)\s?%"), " percent"),
    (re.compile(r"\b(noon|midnight)[–-](?=\d)"), r"\1 to "),
    (re.compile(r"(?<=\d[ap]m)[–-](?=noon|midnight)", re.IGNORECASE), " to "),
    (re.compile(r"(?<![\w/])\d(?:/\d){2,}(?![\w/])"), lambda match: match[0].replace("/", " ")),
    (re.compile(r"(?<![\w/])((?:19|20)\d\d)/(\d\d|(?:19|20)\d\d)(?![\w/])"), _season),
    (re.compile(rf"(?<![\w.,])({AMOUNT})([kKMB]){DASH}({AMOUNT}\2)\b"), r"\1 to \3"),
    (re.compile(r"(?<![\w/])(\d{1,2}/\d{1,2})-(?=[a-z])"), r"\1 "),  # 1/2-inch
    (re.compile(r"(?<![\w/.])(\d+)/(\d+)(?:rd|th|nd|st)(s?)\b"), _ordinal_fraction),
    (
        re.compile(r"(?<![\w/.])(\d+)/(\d+)(?![\w/]|\.\d)(?!\d*/)"),
        lambda match: _slashed(int(match[1]), int(match[2]), match[0]),
    ),
]
NO_FRACTIONS = {(24, 7), (9, 11), (7, 11), (20, 20), (4, 4), (6, 8), (12, 8)}


def _slashed(first: int, second: int, written: str) -> str:
    """Read two numbers with a slash between them; a fraction is returned as `written`, for wetext."""
    both = f"{cardinal(str(first))} {cardinal(str(second))}"
    if second == 10:
        return f"{cardinal(str(first))} out of ten"
    if (first, second) in NO_FRACTIONS or first == second or first + second == 100:
        return both
    if second == 100:
        return f"{cardinal(str(first))} out of one hundred"
    if first >= 100:
        return f"{cardinal(str(first))} over {cardinal(str(second))}"
    return written if second in FRACTIONS_OF else both


# wetext reads 1000 as "ten hundred", and drops the "one" of 1,000 to 1,999.
THOUSAND_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,:/$€£¥-])((?:1[1-9]|20)\d\d)-(?=[a-z]{2})"), lambda match: year(match[1]) + "-"),
    (re.compile(r"(?<![\w.,:/$€£¥-])(?:\d{3}|\d{1,3}(?:,\d{3})+)(?=-[a-z]{2})"), lambda match: number(match[0])),
    (re.compile(r"(?<![\w.,:/$€£¥-])1000(?![\w:/-]|[.,]\d)"), "one thousand"),
    (re.compile(r"(?<![\w.,:/$€£¥-])\d+\.0(?![\w.,/:-]*\d|[A-Za-z%°])"), lambda match: number(match[0])),
    (re.compile(r"(?<![\w.,$€£¥])1,\d{3}(?:\.\d+)?(?![\d,]*\d|[\w])"), lambda match: number(match[0])),
]
