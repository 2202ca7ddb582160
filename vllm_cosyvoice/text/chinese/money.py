"""Money, fractions and ratios."""

import re
from decimal import Decimal

from vllm_cosyvoice.text.chinese.numbers import amount
from vllm_cosyvoice.text.chinese.patterns import AMOUNT
from vllm_cosyvoice.text.rules import Rule

CURRENCIES = {
    "€": "欧元", "£": "英镑", "$": "美元", "US$": "美元", "HK$": "港元", "NT$": "新台币", "A$": "澳元", "C$": "加元",
    "¥": "元", "￥": "元", "₩": "韩元", "₹": "卢比", "USD": "美元", "EUR": "欧元", "GBP": "英镑", "HKD": "港元",
    "JPY": "日元", "CNY": "元", "RMB": "元",
}  # fmt: skip
CURRENCY = "|".join(re.escape(sign) for sign in sorted(CURRENCIES, key=len, reverse=True))
MONEY_RULES: list[Rule] = [
    (
        re.compile(r"(?<!\d)(\d{2,3})/(\d{2,3})(?=\s?(?:mmHg|毫米汞柱))"),
        lambda match: f"{amount(match[1])}比{match[2]}",
    ),
    (re.compile(r"(?<![\d/])24/7(?![\d/])(?:小时)?"), "二十四小时七天"),
    (re.compile(r"(?<![\d/])9/11(?![\d/])"), "九一一"),
    (
        re.compile(r"(?<![\d/.])(\d{1,3})/(\d{1,3})(?![\d/.])"),
        lambda match: (
            f"{_denominator(match[2])}分之{match[1]}" if _is_fraction(match) else f"{amount(match[1])}比{match[2]}"
        ),
    ),
    (
        re.compile(rf"((?:US)?[$])({AMOUNT})([MB])(?![A-Za-z])"),
        lambda match: (
            f"{Decimal(match[2]) * (100 if match[3] == 'M' else 10):f}".removesuffix(".0")
            + ("万" if match[3] == "M" else "亿")
            + CURRENCIES[match[1]]
        ),
    ),
    (
        re.compile(rf"({CURRENCY})\s?({AMOUNT})([万亿千百]*)"),
        lambda match: match[2].removesuffix(".00") + match[3] + CURRENCIES[match[1]],
    ),
    (
        re.compile(r"(?<=[\d万亿])\s?([€£₩₹]|USD|EUR|GBP|HKD|JPY|CNY|RMB)(?![A-Za-z])"),
        lambda match: CURRENCIES[match[1]],
    ),
    (re.compile(r"(?<=[元镑比])(?:元|蚊)"), ""),
    (re.compile(r"(?<=\d)\.00(?=[元美欧港日英])"), ""),
]


def _denominator(digits: str) -> str:
    return "二" if digits == "2" else digits  # wetext would make it 两


def _is_fraction(match: re.Match[str]) -> bool:
    return int(match[1]) < int(match[2])
