"""English readings of signs: comparisons, powers, arithmetic."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, ordinal
from vllm_cosyvoice.text.rules import Rule

# Signs.
POWERS = {"2": "squared", "3": "cubed"}
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def _power(match: re.Match[str]) -> str:
    gap = " " if re.match(r"\w", match.string[match.end() :]) else ""
    exponent = (match[2] or match[1]).translate(RAISED)
    minus, digits = ("minus ", exponent[1:]) if exponent.startswith("-") else ("", exponent)
    if not minus and digits in POWERS:
        return f" {POWERS[digits]}{gap}"
    return f" to the {minus}{cardinal(digits) if minus else ordinal(digits)}{gap}"


SIGN_RULES: list[Rule] = [
    (re.compile(r"√\s*(?=[\w(])"), "square root of "),
    (re.compile("∞"), "infinity"),
    (re.compile(r"\s*(?:→|⇒|➜|➔)\s*"), ", "),
    (re.compile(r"№\s*(?=\d)"), "number "),
    (re.compile(r"(?<!\w)#(?=[A-Za-z])"), "hashtag "),
    (re.compile(r"\b([A-DFO]|AB)\+(?![\w+])"), r"\1 plus"),
    (re.compile(r"(?<=UTC|GMT)[-−](?=\d)"), " minus "),
    (re.compile(r"(?<=[\w)])(?:([⁰¹²³⁴-⁹⁻]+)|\^\{?(-?\d+)\}?)"), _power),
    (re.compile(r"(?<=[a-z]{2}) > (?=[A-Z][a-z])"), ", "),  # Settings > Privacy
    (re.compile(r"<(/?[A-Za-z][\w-]*)>"), r"\1"),  # the name of a tag
    (re.compile(r"\s*(?:<=|≤)\s*"), " less than or equal to "),
    (re.compile(r"\s*(?:>=|≥)\s*"), " greater than or equal to "),
    (re.compile(r"\s*(?:!=|≠)\s*"), " not equal to "),
    (re.compile(r"\s*<\s*(?=[\w$]|-\d)"), " less than "),
    (re.compile(r"(?<![-=<>\w])\s*>\s?(?=[\w$€£])"), " greater than "),
    (re.compile(r"(?<=[\w)%])\s*(?<!-)(?<!=)>\s*(?=[\w$-])"), " greater than "),
    (re.compile(r"(?<=[\w)²³}\]])\s*={1,3}\s*(?=[\w$(√−-])"), " equals "),
    (re.compile(r"(?<=[\w)%\]])\s*\+\s*(?=[\w(])"), " plus "),
    (re.compile(r"(?<![\w+])\+(?=\d)"), "plus "),
    (re.compile(r"(?<=\w)\+(?=[\s.,;:!?)%]|$)"), " plus"),
    (re.compile(r"(?<![\w*])\*(?=\d{2,3}(?![\w%]))"), "star "),
    (re.compile(r"(?<=\d)#(?!\w)"), " hash"),
    (re.compile(r"(?<=\d{3})×(?=\d{3})"), " by "),
    (re.compile(r"(?<=[\w)])(?:[×*]|\s+[×*]\s+)(?=[\w(])|(?<=\d)\s+x\s+(?=\d)|(?<=\w)\s+x\s+(?=10 )"), " times "),
    (re.compile(r"\s*÷\s*"), " divided by "),
    (re.compile(r"\s*±\s*"), " plus or minus "),
    (re.compile(r"\s*≈\s*"), " about "),
    (re.compile(r"(?<=[\w)])(\s?)−\1(?=[\w(√])"), " minus "),
    (re.compile(r"−(?=[A-Za-z])"), "minus "),
    (re.compile(r"−(?=\d)"), "-"),
    (re.compile(r"§(§?)\s*(?=\d)"), lambda match: "sections " if match[1] else "section "),
    (re.compile(r"(?<!\w)#\s?(?=\d)"), "number "),
    (re.compile(r"(?<!\S)@\s?(?=\w)"), "at "),
    (re.compile(r"(?<=\d)°(?=\s|[.,;!?]|$)"), " degrees"),
    (re.compile(r"(?<=\()\s+"), ""),
]
