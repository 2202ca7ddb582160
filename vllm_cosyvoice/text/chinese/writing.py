"""One way to write numbers, dates, times and versions, for the rules that follow."""

import re

from vllm_cosyvoice.text.chinese.numbers import digits
from vllm_cosyvoice.text.chinese.patterns import DASH
from vllm_cosyvoice.text.grammar import read_out
from vllm_cosyvoice.text.rules import Rule

WRITING_RULES: list[Rule] = [  # how numbers are written
    (re.compile(r"(?<=\d)－(?=\d)"), "-"),
    (re.compile(r"(?<=\d)：(?=\d)"), ":"),
    (
        re.compile(r"((?:日期|时间|生日)[是为：:]?\s?)((?:19|20)\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])(?!\d)"),
        r"\1\2年\3月\4日",
    ),
    (re.compile(r"(?<!\d)0(?=[1-9][月日号])"), ""),
    (
        re.compile(r"(?<=[日号午晚上晨早])\s?(\d{1,2}):([0-5]\d)(?![\d:])"),
        lambda match: f"{int(match[1])}点" + ("" if match[2] == "00" else f"{match[2]}分"),
    ),
    (re.compile(r"(?<![A-Za-z\d])(\d{1,3})(?:st|nd|rd|th)(?![A-Za-z])"), r"第\1"),
    (re.compile(r"(?<![A-Za-z\d])([BCGOP])2(?=[BCGOP](?![A-Za-z\d]))"), r"\1 to "),
    (re.compile(r"(?<![A-Za-z])(L[vV]|[Vv]er|E[pP])\.\s?(?=\d)"), r"\1 "),
    (re.compile(r"(?<![\d.,])\d{1,3}(?: 000)+(?![\d,.])"), lambda match: match[0].replace(" ", "")),
    (re.compile(r"第(\d+)/(\d+)页"), r"第\1页，共\2页"),
    (re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])"), lambda match: match[0].replace(",", "")),
    (re.compile(r"−(?=\d)"), "-"),
    (re.compile(r"^\s*(\d{1,2})[.．]\s*(?=[^\d\s])"), r"\1、"),
    (re.compile(r"(?<![\d.])((?:19|20)\d\d)\.(\d{1,2})\.(\d{1,2})(?![\d.])"), r"\1年\2月\3日"),
    (
        re.compile(rf"(?<![\d.])((?:19|20)\d\d)\.(\d{{1,2}}){DASH}((?:19|20)\d\d)\.(\d{{1,2}})(?![\d.])"),
        r"\1年\2月到\3年\4月",
    ),
    (
        re.compile(rf"(?<![\d.])(1?\d)\.([1-3]?\d){DASH}(1?\d)\.([1-3]?\d)(?=放假|假期|休|期间|活动)"),
        r"\1月\2日到\3月\4日",
    ),
    (
        re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})(?=\s?(?:[上下]午|[早晚]上|[中正]午|凌晨|傍晚|[（(]?(?:周|星期)))"),
        r"\1月\2日",
    ),
    (re.compile(r"(?<!\d)((?:1[89]|20)\d0)s(?![A-Za-z])"), lambda match: digits(match[1]) + "年代"),
    (
        re.compile(r"(?<![\d.])([vV]?)(\d+(?:\.\d+){2}|\d+(?:\.\d+){4,})(?!\.?\d)"),
        lambda match: match[1] + "点".join(map(_version_part, match[2].split("."))),
    ),
]


def _version_part(number: str) -> str:
    return digits(number) if len(number) == 1 or number[0] == "0" else read_out(number, "zh")
