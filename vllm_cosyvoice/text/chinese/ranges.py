"""Ranges, scores, hyphens."""

import re

from vllm_cosyvoice.text.chinese.numbers import digits
from vllm_cosyvoice.text.chinese.patterns import AMOUNT, DASH, HAN
from vllm_cosyvoice.text.rules import Rule

RANGE_RULES: list[Rule] = [
    (re.compile(r"(?<=\d)(?<!\b0)\s?[xX*]\s?(?=\d)|(?<=\d[cmk]m)\s?[xX*]\s?(?=\d)"), "乘"),
    (
        re.compile(
            rf"(?<!\d)((?:19|20)\d\d){DASH}((?:19|20)\d\d)(?![\d-])(?!\s?[=元万亿个人名米步块公斤千克度次件头只])"
        ),
        lambda match: f"{digits(match[1])}到{digits(match[2])}",
    ),
    (re.compile(r"(?<![\d.\w])-(\d+)\s?[~～–—]\s?(?=-?\d)"), r"-\1到"),
    (re.compile(rf"(?<![\d.A-Za-z])({AMOUNT})%?{DASH}({AMOUNT})%"), r"\1%到\2%"),
    (
        re.compile(rf"(?<![\d.])({AMOUNT})(℃|°C|[{HAN}]{{1,2}}|[A-Za-zμ/]{{1,6}}[²³]?){DASH}({AMOUNT})(?=\2)"),
        r"\1\2到\3",
    ),
    (re.compile(rf"[$]({AMOUNT}){DASH}[$]?({AMOUNT})"), r"\1到\2美元"),
    (re.compile(rf"[¥￥]({AMOUNT}){DASH}[¥￥]?({AMOUNT})"), r"\1到\2元"),
    (re.compile(r"(?<=\d)\s?[–—～]+\s?(?=\d)"), "~"),
    (
        re.compile(r"(?<![\d-])(\d{3})-(\d{3})(?![\d-])(?=客机|飞机|型|系列)"),
        lambda match: digits(match[1] + match[2]),
    ),
    (
        re.compile(r"(?<![\d.A-Za-z:/-])(\d{1,3})-(\d{1,3})(?![\d.:/%-])(?!\s?(?:=|等于))"),
        lambda match: _range_or_score(match[1], match[2]),
    ),
    (
        re.compile(rf"(?<![\d.A-Za-z:/-])({AMOUNT})-({AMOUNT})(?![\d.:/%-])(?!\s?(?:=|等于))"),
        lambda match: f"{match[1]}到{match[2]}" if float(match[1]) < float(match[2]) else match[0],
    ),
    (re.compile(r"(?<=[年月日号点时分])\s?[-–—~]\s?(?=\d)"), "到"),
    (re.compile(r"([A-Za-z]-?\d+(?:\.\d+)?)-(?=\d)"), r"\1杠"),
    (re.compile(r"(?<=[A-Za-z])[-‐](\d{4,})(?!\d)"), lambda match: digits(match[1])),
    (re.compile(r"(?<=[A-Za-z歼轰运苏米])[-‐](?=\d)|(?<=\w)-(?=\d+号)"), ""),
    (re.compile(r"(?<=\d)[-‐](?=[A-Za-z])"), ""),
]


def _range_or_score(first: str, second: str) -> str:
    return f"{first}到{second}" if int(first) < int(second) else f"{first}比{second}"
