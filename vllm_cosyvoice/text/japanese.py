"""Reads Japanese text: wetext's grammar, and rules that it lacks."""

import re

from vllm_cosyvoice.text.chinese import close_up
from vllm_cosyvoice.text.grammar import read_out
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.rules import Rule, apply

COUNTED = dict(
    zip("123456789", ["ひと", "ふた", "みっ", "よっ", "いつ", "むっ", "なな", "やっ", "ここの"], strict=True)
)
DIGITS = dict(
    zip("0123456789", ["ゼロ", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう"], strict=True)
)
WIDE = str.maketrans("０１２３４５６７８９％", "0123456789%")

ADDRESS_RULES: list[Rule] = [
    (re.compile(r"https?://"), ""),
    (re.compile(r"(?<=[A-Za-z\d])@(?=[A-Za-z\d])"), "アット"),
    (re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])"), "ドット"),
]
RULES: list[Rule] = [
    (re.compile(r"(?<=\d)\s?(?:℃|°C)"), "度"),
    (re.compile(r"(?<![\d.,])([1-9])つ"), lambda match: COUNTED[match[1]] + "つ"),
    (re.compile(r"(?<![\d.,])1人(?!前|当)"), "ひとり"),
    (re.compile(r"(?<![\d.,])2人(?!前|当)"), "ふたり"),
    (re.compile(r"(?<![\d-])0\d{1,3}-\d{1,4}-\d{3,4}(?![\d-])"), lambda match: _telephone(match[0])),
    (re.compile(r"〒\s?(\d{3}-\d{4})"), lambda match: f"郵便番号{_telephone(match[1])}"),
    (re.compile(r"(?<![\d-])(\d{1,3})-(\d{1,3})(?![\d-])"), lambda match: _score_or_range(match[1], match[2])),
    (re.compile(r"(?<![\d:])(\d{1,3}):(\d|\d{3})(?![\d:])"), r"\1対\2"),
    (
        re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d.]*\d)"),
        lambda match: "点".join(read_out(part, "ja") for part in match[0].split(".")),
    ),
    (re.compile(r"(?<=[A-Za-z])\.(?=\d)"), ""),
    (re.compile(r"(?<=[年月日時分度])\s?[〜～~]\s?(?=\S)"), "から"),
    (re.compile(r"(?<=\d)(%?)\s?[–—~～〜-]\s?(?=\d)(?!\d+-)"), r"\1から"),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)"), ""),
    (re.compile(r"[¥￥]\s?(\d[\d,.]*\d|\d)"), r"\1円"),
    (re.compile(r"\$\s?(\d[\d,.]*\d|\d)"), r"\1ドル"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d:])(\d{1,2}):00(?![\d:])"), r"\1時"),
    (re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])"), lambda match: f"{match[1]}時{int(match[2])}分"),
]
CLAUSE = re.compile(rf"([、。！？「」『』（）\"\\\n{HIDDEN}]+)")
HAS_DIGIT = re.compile(r"\d")


def read(line: str) -> str:
    """Convert one line of text to the Japanese words to speak."""
    line = apply(ADDRESS_RULES, line.translate(WIDE))
    if HAS_DIGIT.search(line):
        parts = CLAUSE.split(apply(RULES, line))
        line = "".join(read_out(part, "ja") if HAS_DIGIT.search(part) else part for part in parts).replace(
            "〇点", "零点"
        )
    return close_up(line)


def _score_or_range(first: str, second: str) -> str:
    return f"{first}から{second}" if int(first) < int(second) else f"{first}対{second}"


def _telephone(digits: str) -> str:
    return "、".join("".join(DIGITS[digit] for digit in group) for group in digits.split("-"))
