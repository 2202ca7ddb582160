"""Formulas: powers, sums, products."""

import re

from vllm_cosyvoice.text.rules import Rule

EQUAL = r"(?=[A-Za-z\d()+×÷*/^.²³√ -]{0,40}=)"
LETTER = "(?<=(?<![A-Za-z])[A-Za-z])"  # a variable
LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
FORMULA_RULES: list[Rule] = [
    (re.compile(r"(?<=[A-Za-z])\+\+"), "加加"),
    (re.compile(r"(?<=\d)(?:w(?![A-Za-z/])|W(?=\+))"), "万"),
    (
        re.compile(r"(?:(?<=[\d)）])|(?<=(?<![A-Za-z])[A-Za-z])(?![²³](?![⁰-⁹])))(⁻?[⁰¹²³⁴-⁹]+)"),
        lambda match: "^" + match[1].translate(LOWERED),
    ),
    (
        re.compile(r"(?<=[\w)²³])\s*\^\s*[({]?(-?\d+|[a-z](?![A-Za-z]))[)}]?"),
        lambda match: f"的{match[1].replace('-', '负')}次方",
    ),
    (re.compile(r"(?<=次方)\s?[-−]\s?(?=\d)"), "减"),
    (re.compile(rf"(?:(?<=[\d)²³方])|{LETTER})\s?[-−－]\s?(?=[\d(√]|[A-Za-z](?![A-Za-z])){EQUAL}"), "减"),
    (
        re.compile(rf"(?:(?<=[\d)²³方%万亿])|{LETTER})\s?\+\s?(?=[\w(√])|(?<=[A-Za-z])\+(?=\d)|(?<=[\d万亿])\+(?!\+)"),
        "加",
    ),
    (re.compile(r"(?<=[\w)²³])\s?[×✕]\s?(?=[\w(√])"), "乘"),
]
