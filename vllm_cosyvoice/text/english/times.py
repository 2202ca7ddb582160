"""English decades, durations and times of day."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number, one_by_one, plural, year
from vllm_cosyvoice.text.rules import Rule

# Decades.
OWNER = r"\b(?:[Tt]he|[Hh]is|[Hh]er|[Tt]heir|[Mm]y|[Oo]ur|[Yy]our|[Ee]arly|[Mm]id|[Ll]ate)[ -]"
DECADE_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,])(10{1,3})s(?= of\b)"), lambda match: ("tens", "hundreds", "thousands")[len(match[1]) - 2]),
    (re.compile(r"(?<=\d0s)[–-](?=['’]?\d{1,3}0s)"), " to "),
    (re.compile(r"(?<![\w.,])(1\d\d0|20[1-9]0)['’]?s\b"), lambda match: plural(year(match[1]))),
    (re.compile(r"(?<![\w.,])2000['’]?s\b"), "two thousands"),
    # "30s" alone are seconds; "the 30s" and "'30s" are decades, and so is "80s": nobody counts eighty seconds.
    (
        re.compile(rf"({OWNER}|(?<![\w.,])['’‘])([1-9]0)['’]?s\b"),
        lambda match: match[1].strip("'’‘") + plural(cardinal(match[2])),
    ),
    (re.compile(r"(?<![\w.,])(?:([789]0)['’]?|([1-6]0)['’])s\b"), lambda match: plural(cardinal(match[1] or match[2]))),
    (re.compile(r"(?<![\w.,])(an? )([1-6]0)s (?=[a-z])"), r"\1\2 second "),
    (re.compile(r"(?<![\w.,])([1-6]0)s\b"), r"\1 seconds"),
]


# Times of day that wetext does not read as such.
TIME_RULES: list[Rule] = [
    (re.compile(r"(?<![\d:])([1-9]|1[01]):00(?=\s?[ap]m\b)", re.IGNORECASE), r"\1"),
    (re.compile(r"(?<![\d:])(?:00|0):00(?![\d:]|\s?[ap]m)", re.IGNORECASE), "midnight"),
    (
        re.compile(r"(?<![\d:])00?:(\d\d)(?![\d:]|\s?[ap]m)", re.IGNORECASE),
        lambda match: f"zero {one_by_one(match[1], 'oh') if match[1][0] == '0' else cardinal(match[1])}",
    ),
    (
        re.compile(r"(?<![\d:])(1[3-9]|2[0-4]):00(?![\d:]|\s?[ap]m)", re.IGNORECASE),
        lambda match: f"{cardinal(match[1])} hundred",
    ),
    (
        re.compile(r"(?<![\d:])(1[3-9]|2[0-3]):0([1-9])(?![\d:])"),
        lambda match: f"{cardinal(match[1])} oh {cardinal(match[2])}",
    ),
]

DURATION_RULES: list[Rule] = [
    (
        re.compile(r"(?<![\w:.])(\d{1,2}):(\d\d\.\d{1,3})(?![\w:])"),
        lambda m: f"{number(m[1])} {number(m[2])}",
    ),  # a race
    (re.compile(r"(?<![\w.])(\d{1,2})h00\b"), r"\1:00"),
    (re.compile(r"(?<![\w.])(\d{1,2})h([0-5]\d)\b"), r"\1h \2m"),
    (
        re.compile(r"\b(\d+)\s?h\s?(\d+)\s?m(?:in)?\b"),
        lambda match: f"{_counted(match[1], 'hour')} {_counted(match[2], 'minute')}",
    ),
    (
        re.compile(r"\b(\d+)\s?m(?:in)?\s?(\d+)\s?s(?:ec)?\b"),
        lambda match: f"{_counted(match[1], 'minute')} {_counted(match[2], 'second')}",
    ),
]


def _counted(digits: str, name: str) -> str:
    return f"{number(digits)} {name}" if digits == "1" else f"{number(digits)} {name}s"
