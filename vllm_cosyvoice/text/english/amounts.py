"""English ranges, slashes, units and thousands."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number, ordinal, year
from vllm_cosyvoice.text.english.patterns import AMOUNT, DASH, FUNCTION_WORD, one_of
from vllm_cosyvoice.text.rules import Rule

VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8"}
SIDE = r"(?:[kcm]?m|ft|in|px)\b"
# Ranges, and slashes that are not fractions.
RANGE_RULES: list[Rule] = [
    (re.compile(r"(?<=°[CF])\s?/\s?(?=\d)"), " or "),
    (re.compile(rf"(?<![\w.,])-({AMOUNT})\s?[~～–—]\s?(?=-?\d)"), r"-\1 to "),
    (re.compile(r"(?<=\d)([½¼¾⅓⅔⅛])"), lambda match: " " + VULGAR[match[1]]),
    (
        re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?)e([+-]?)(\d{1,3})(?![\w.]*\d)"),
        lambda match: (
            f"{match[1]} times ten to the {'minus ' + cardinal(match[3]) if match[2] == '-' else ordinal(match[3])}"
        ),
    ),
    (re.compile(rf"(?<=\d)\s?({SIDE})\s?[x×]\s?(?=\d)"), r"\1 by "),
    (re.compile(r"(?<=\d) / (?=\d)"), " divided by "),
    (re.compile(r"(?<=\d)x(?=\s*[+=])|(?<=[+=]\s\d)x\b|(?<=[+=]\d)x\b"), " x"),
    (re.compile(r"(?<![\d/])24/7/365(?![\d/])"), "twenty four seven three sixty five"),
    (
        re.compile(r"(?<![\w/.,])(\d+\.\d+)/(\d+)(?![\w/.])"),
        lambda match: f"{number(match[1])} out of {cardinal(match[2])}",
    ),
    (
        re.compile(r"\b((?:[Oo]n|[Uu]ntil|[Ss]ince) )(1[0-2]|[1-9])/(3[01]|[12]\d|[1-9])(?![\w/])"),
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
    "secs": "second", "hrs": "hour", "tbsp": "tablespoon", "tsp": "teaspoon", "px": "pixel",
    "Kbps": "kilobits per second",
    "kbps": "kilobits per second", "GB/s": "gigabytes per second", "MB/s": "megabytes per second",
    "m/s²": "meters per second squared", "m/s2": "meters per second squared", "kg/m²": "kilograms per square meter",
    "sq ft": "square foot", "sq. ft": "square foot", "sq. ft.": "square foot", "ft²": "square foot",
    "sq m": "square meter", "sq. m": "square meter", "sq mi": "square mile", "yd": "yard", "gal": "gallon",
    "ppm": "parts per million", "ms": "millisecond", "MP": "megapixel",
}  # fmt: skip
# wetext reads these, too, but not in the singular before a noun: "a 5 km run".
AHEAD_OF_NOUN = UNITS | {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "kg": "kilogram", "g": "gram", "ft": "foot",
    "lb": "pound", "oz": "ounce", "ml": "milliliter", "mg": "milligram", "GB": "gigabyte", "MB": "megabyte",
    "TB": "terabyte", "min": "minute", "h": "hour", "hr": "hour",
}  # fmt: skip


def _measure(match: re.Match[str]) -> str:
    name = UNITS[match[2]]
    if match[1] == "1" or " per " in name or " of " in name:
        return f"{number(match[1])} {name}"
    return f"{number(match[1])} {'square feet' if name == 'square foot' else name + 's'}"


def _inches(amount: str) -> str:
    return f"{number(amount)} {'inch' if amount == '1' else 'inches'}"


UNIT_RULES: list[Rule] = [
    (re.compile(r"(?<=\d)\s?(oz|lbs?|ft|hrs?|mins?|secs?|yd|gal|tbsp|tsp|mi|in)\.(?=\s+[a-z]|[,;)])"), r" \1"),
    (
        re.compile(r"(?<![\w.,])(\d+)\s?(?:ft|feet|foot)\.?\s?(\d+)\s?in\b\.?"),
        lambda match: f"{number(match[1])} {'foot' if match[1] == '1' else 'feet'} {_inches(match[2])}",
    ),
    (
        re.compile(rf"(?<![\w.,])({AMOUNT})\s?in(?=\s(?:wide|long|tall|deep|high|thick|by|x)\b)"),
        lambda match: _inches(match[1]),
    ),
    (re.compile(r"(?<![\w.,])(\d+)(?:st|nd|rd|th)-(?=[a-z])"), lambda match: ordinal(match[1]) + "-"),
    (re.compile(r"(?<![\w.,])(\d)['’′](\d{1,2})[\"”″]"), lambda match: f"{number(match[1])} foot {number(match[2])}"),
    (re.compile(r"(?<![\w.,])(\d+)['’′] ?[x×] ?(\d+)['’′](?!\w)"), r"\1 foot by \2 foot"),
    (re.compile(r"\b401\(?k\b\)?"), "four oh one k"),
    (
        re.compile(
            rf"(\b(?:[Aa]n?|[Tt]he) )({AMOUNT})[ -]?({one_of(AHEAD_OF_NOUN)})"
            rf"(?=[ -](?!{FUNCTION_WORD}|that\b|which\b)[a-z])"
        ),
        lambda match: f"{match[1]}{number(match[2])} {AHEAD_OF_NOUN[match[3]]}",
    ),
    (re.compile(r"(?<![\w/.])(\d{2,3})/(\d{2,3})(?=\s?mmHg)"), r"\1 over \2"),
    (
        re.compile(rf"(\d )?(?<![\w.,/])(\d{{1,2}}/\d{{1,2}}) ?({one_of(UNITS)})(?![\w/²³'’-])"),
        lambda match: f"{match[1] or ''}{match[2]} {UNITS[match[3]]}{'s' if match[1] else ''}",
    ),
    (re.compile(rf"(?<![\w.,/])({AMOUNT})\s?({one_of(UNITS)})(?![\w/²³'’-])"), _measure),
    (re.compile(r"(?<![\w.,])(\d+)k (?=run|race|walk)"), lambda match: f"{cardinal(match[1])} k "),
    (re.compile(rf"(?<![\w.,])({AMOUNT})M(?![\w-])"), lambda match: f"{number(match[1])} million"),
    (re.compile(rf"(?<![\w.,])({AMOUNT})(?:k|(?<=\d\d)K)(?![\w-])"), lambda match: f"{number(match[1])} thousand"),
]


# wetext reads 1000 as "ten hundred", and drops the "one" of 1,000 to 1,999.
THOUSAND_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,:/$€£¥-])((?:1[1-9]|20)\d\d)-(?=[a-z]{2})"), lambda match: year(match[1]) + "-"),
    (re.compile(r"(?<![\w.,:/$€£¥-])(?:\d{3}|\d{1,3}(?:,\d{3})+)(?=-[a-z]{2})"), lambda match: number(match[0])),
    (re.compile(r"(?<![\w.,:/$€£¥-])1000(?![\w:/-]|[.,]\d)"), "one thousand"),
    (re.compile(r"(?<![\w.,:/$€£¥-])\d+\.0(?![\w.,/:-]*\d|[A-Za-z%°])"), lambda match: number(match[0])),
    (re.compile(r"(?<![\w.,$€£¥])1,\d{3}(?:\.\d+)?(?![\d,]*\d|[\w])"), lambda match: number(match[0])),
]
