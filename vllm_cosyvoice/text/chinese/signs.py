"""Other signs between numbers and words."""

import re
import unicodedata

from vllm_cosyvoice.text.chinese.patterns import HAN
from vllm_cosyvoice.text.rules import Rule

SIGN_RULES: list[Rule] = [
    (re.compile(r"(?<=[周期拜][一二三四五六日天])\s?[-~～—–]\s?(?=周|星期|礼拜)"), "到"),
    (re.compile(r"(\d?)([½⅓⅔¼¾⅕⅖⅗⅘⅙⅛⅜⅝⅞])"), lambda match: _fraction(match[1], match[2])),
    (re.compile(r"√\s*(?=[\w(])"), "根号"),
    (re.compile("∞"), "无穷大"),
    (re.compile(r"\s*(?:→|⇒|➜)\s*"), "，"),
    (re.compile(r"№\s*(?=\d)"), "编号"),
    (re.compile(r"§\s*(?=\d)"), "第"),
    (re.compile(r"(?<=[℃C度%])\s?[~～–—]\s?(?=-?\d|零[上下])"), "到"),
    (re.compile(rf"(?<=[的了吧呢啊哦嘛呀哈啦哟嗯])[~～]+(?=[{HAN}])"), "，"),
    (re.compile(r"[~～]+(?=$|[，。！？…”])"), ""),
    (re.compile(r"\s*(?:<=|≤)\s*"), "小于等于"),
    (re.compile(r"\s*(?:>=|≥)\s*"), "大于等于"),
    (re.compile(r"\s*(?:!=|≠)\s*"), "不等于"),
    (re.compile(r"\s*<\s*(?=[\w-])"), "小于"),
    (re.compile(r"(?:(?<=[\w)%（，：、])|^)\s*(?<![-=])>\s*(?=[\w-])"), "大于"),
    (re.compile(r"(?<=[\w)²³%°])\s*={1,3}\s*(?=[\w(√-])"), "等于"),
    (re.compile(r"\s*±\s*"), "正负"),
    (re.compile(r"\s*≈\s*"), "约等于"),
    (re.compile(r"\s*÷\s*"), "除以"),
    (re.compile(rf"(?<![\d万亿千百][{HAN}])(?<![\d万亿千百][{HAN}]{{2}})(?<=[{HAN}])/(?=[{HAN}])"), "、"),
    (re.compile(r"\s*&\s*"), "和"),
]


def _fraction(whole: str, sign: str) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", sign).split("\u2044")
    return f"{whole}{'又' if whole else ''}{denominator}分之{numerator}".replace("2分", "二分")
