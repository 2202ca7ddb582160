"""English ranges, slashes, units and thousands."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number
from vllm_cosyvoice.text.english.patterns import AMOUNT, DASH, FUNCTION_WORD, one_of
from vllm_cosyvoice.text.rules import Rule

# Ranges, and slashes that are not fractions.
RANGE_RULES: list[Rule] = [
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
    (re.compile(r"(?<![\w/.])(\d/\d+)(?:rd|th|nd|st)s?\b"), r"\1"),
    (
        re.compile(r"(?<![\w/.])(\d+)/(\d+)(?![\w/]|\.\d)(?!\d*/)"),
        lambda match: _slashed(int(match[1]), int(match[2]), match[0]),
    ),
]
FRACTIONS_OF = {2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 32, 64}
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


# Units that wetext confuses with others or does not know.
UNITS = {
    "m": "meter", "m²": "square meter", "m2": "square meter", "m³": "cubic meter", "m/s": "meters per second",
    "L": "liter", "l": "liter", "kWh": "kilowatt hour", "kW": "kilowatt", "W": "watt", "V": "volt",
    "mAh": "milliamp hour", "mmHg": "millimeters of mercury", "mmol/L": "millimoles per liter",
    "mg/dL": "milligrams per deciliter", "fps": "frames per second", "dB": "decibel", "Mbps": "megabits per second",
    "Gbps": "gigabits per second", "kcal": "kilocalorie", "µg": "microgram", "μg": "microgram", "mins": "minute",
    "secs": "second", "hrs": "hour",
}  # fmt: skip
# wetext reads these, too, but not in the singular before a noun: "a 5 km run".
AHEAD_OF_NOUN = UNITS | {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "kg": "kilogram", "g": "gram", "ft": "foot",
    "lb": "pound", "oz": "ounce", "ml": "milliliter", "mg": "milligram", "GB": "gigabyte", "MB": "megabyte",
    "TB": "terabyte", "min": "minute", "h": "hour", "hr": "hour",
}  # fmt: skip


def _measure(match: re.Match[str]) -> str:
    name = UNITS[match[2]]
    return f"{number(match[1])} {name if match[1] == '1' or ' per ' in name or ' of ' in name else name + 's'}"


UNIT_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,])(\d)['’′](\d{1,2})[\"”″]"), lambda match: f"{number(match[1])} foot {number(match[2])}"),
    (re.compile(r"\b401\(?k\b\)?"), "four oh one k"),
    (
        re.compile(
            rf"(\b(?:[Aa]n?|[Tt]he) )({AMOUNT})[ -]?({one_of(AHEAD_OF_NOUN)})"
            rf"(?=[ -](?!{FUNCTION_WORD}|that\b|which\b)[a-z])"
        ),
        lambda match: f"{match[1]}{number(match[2])} {AHEAD_OF_NOUN[match[3]]}",
    ),
    (re.compile(r"(?<![\w/.])(\d{2,3})/(\d{2,3})(?=\s?mmHg)"), r"\1 over \2"),
    (re.compile(rf"(?<![\w.,])({AMOUNT})\s?({one_of(UNITS)})(?![\w/²³'’-])"), _measure),
    (re.compile(r"(?<![\w.,])(\d+)k (?=run|race|walk)"), lambda match: f"{cardinal(match[1])} k "),
    (re.compile(rf"(?<![\w.,])({AMOUNT})M(?![\w-])"), lambda match: f"{number(match[1])} million"),
    (re.compile(rf"(?<![\w.,])({AMOUNT})(?:k|(?<=\d\d)K)(?![\w-])"), lambda match: f"{number(match[1])} thousand"),
]


# 1,000 to 1,999, for which wetext drops the "one".
THOUSAND_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,:/$€£¥-])\d+\.0(?![\w.,/:-]*\d|[A-Za-z%°])"), lambda match: number(match[0])),
    (re.compile(r"(?<![\w.,$€£¥])1,\d{3}(?:\.\d+)?(?![\d,]*\d|[\w])"), lambda match: number(match[0])),
]
