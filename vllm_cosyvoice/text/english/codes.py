"""Numbers that are read digit by digit: telephone numbers, cards, codes; and versions."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, in_groups, one_by_one
from vllm_cosyvoice.text.english.patterns import ALONE, ENDED
from vllm_cosyvoice.text.rules import Rule

# Telephone numbers, cards and codes, digit by digit.
CODE_WORD = r"(?:[Cc]ode|PIN|[Pp]in|ZIP|[Zz]ip|[Pp]asscode|[Pp]assword|OTP|[Ee]xtension|[Ee]xt\.?|[Aa]ccount|ending in)"
CODE_RULES: list[Rule] = [
    (
        re.compile(r"\b(ISBN(?:-1[03])?:?)\s*(\d[\d -]{7,}[\dX])(?!\w)"),
        lambda match: f"{match[1].split('-')[0].rstrip(':')} {in_groups(match[2], 'zero')}",
    ),
    (
        re.compile(rf"{ALONE}\d{{4}}(?:[ -]\d{{4}}){{3}}{ENDED}|{ALONE}\d{{4}} \d{{6}} \d{{5}}{ENDED}"),
        lambda match: in_groups(match[0]),
    ),
    (
        re.compile(rf"(?<![\w.,:/-])(?:\(0\d{{1,4}}\)|0\d{{2,4}})(?:[ -]\d{{3,5}}){{1,3}}{ENDED}"),
        lambda match: in_groups(match[0]),
    ),
    (re.compile(rf"{ALONE}\d{{3}}-\d\d-\d{{4}}{ENDED}"), lambda match: in_groups(match[0])),
    (
        re.compile(
            rf"(?<![\w.,:/$€£¥^-])(?:(\+)?\d{{1,3}}[ .-]?)?(?:\(\d{{3}}\)[ ]?|\d{{3}}[ .-])\d{{3}}[ .-]\d{{4}}{ENDED}"
            rf"|(\+)\d{{1,3}}(?:[ .-]?\(?\d{{2,5}}\)?){{2,5}}{ENDED}"
        ),
        lambda match: ("plus " if match[1] or match[2] else "") + in_groups(match[0]),
    ),
    (
        re.compile(rf"{ALONE}(?!\d\d[05]0?-\d\d[05]0\b)[2-9]\d\d-\d{{4}}{ENDED}"),
        lambda match: in_groups(match[0]),
    ),
    (
        re.compile(r"\b((?:[Cc]all|[Dd]ial)(?:ed|ing)? )([2-9]11|999|112|988)\b(?![\d-])"),
        lambda match: match[1] + one_by_one(match[2]),
    ),
    (re.compile(rf"{ALONE}\d(?:-\d){{2,}}{ENDED}"), lambda match: one_by_one(match[0].replace("-", ""))),
    (
        re.compile(rf"\b({CODE_WORD}(?: number)?(?: is)?:? )(\d{{3,}}){ENDED}"),
        lambda match: match[1] + one_by_one(match[2]),
    ),
    (re.compile(rf"{ALONE}(?:0\d+|\d{{10,}}){ENDED}"), lambda match: one_by_one(match[0])),
]


# Versions and other numbers with two or more dots; four parts are an address, which wetext reads.
VERSION_RULES: list[Rule] = [
    (re.compile(r"\b([A-Za-z]{2,})(?=\d+\.\d+\b)"), r"\1 "),
    (
        re.compile(r"(?<![\w.])([vV]?)(\d+(?:\.\d+){2}|\d+(?:\.\d+){4,})(?![\w]|\.\d)"),
        lambda match: f"{match[1]} {_version(match[2])}".strip(),
    ),
    (re.compile(r"(?<![\w.])([vV])(\d+(?:\.\d+)?)(?![\w]|\.\d)"), lambda match: f"{match[1]} {_version(match[2])}"),
]


def _version(digits: str) -> str:
    return " point ".join(map(cardinal, digits.split(".")))
