"""English decades, durations and times of day."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number, one_by_one, plural, year
from vllm_cosyvoice.text.rules import Rule

# Decades.
OWNER = r"(?P<owner>(?:[Tt]he|[Hh]is|[Hh]er|[Tt]heir|[Mm]y|[Oo]ur|[Yy]our|[Ee]arly|[Mm]id|[Ll]ate)[ -])"
DECADE_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,])(1\d\d0|20[1-9]0)['’]?s\b"), lambda match: plural(year(match[1]))),
    (re.compile(r"(?<![\w.,])2000['’]?s\b"), "two thousands"),
    # "30s" alone are seconds; "the 30s" and "'30s" are not, and nobody counts eighty of them.
    (
        re.compile(
            rf"(?:(?<![\w.,])['’‘]([1-9]0)['’]?s|\b{OWNER}([1-9]0)['’]?s|(?<![\w.,])([789]0)['’]?s|(?<![\w.,])([1-9]0)['’]s)\b"
        ),
        lambda match: (
            (match["owner"] or "") + plural(cardinal(next(filter(None, match.groups()[:1] + match.groups()[2:]))))
        ),
    ),
]


# Times of day that have no clock name in wetext.
TIME_RULES: list[Rule] = [
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
