"""Numbers and their digits in words."""

import re

from vllm_cosyvoice.text.chinese.patterns import ALONE
from vllm_cosyvoice.text.grammar import read_out
from vllm_cosyvoice.text.rules import Rule

NUMERALS = str.maketrans("0123456789", "零一二三四五六七八九")
AS_CODE = str.maketrans("0123456789", "零幺二三四五六七八九")  # 幺 for one, which does not sound like seven


def digits(text: str) -> str:
    """`text` with each digit in words: "12" → "一二"."""
    return text.translate(NUMERALS)


def code(text: str) -> str:
    """`text` with each digit in words, as in codes: "12" → "幺二"."""
    return text.translate(AS_CODE)


def telephone(number: str) -> str:
    """The digits of `number` in its groups; mobile numbers are read as in wetext."""
    groups = re.findall(r"\d+", number)
    read = digits if number.startswith("0") else code
    return "，".join(map(read, groups))


def amount(number: str) -> str:
    """`number` in words, even if wetext would take it for the number of the police (110) or an ambulance (120)."""
    return read_out(f"{number}米", "zh").removesuffix("米")


# Numbers that wetext would take for something else.
PLAIN_RULES: list[Rule] = [
    (re.compile(r"(?<=\d[A-Z])/(?=\d)"), "、"),  # 2.4G/5G
    (re.compile(r"(?<=[A-Z]{2})/(?=\d)"), " "),  # HTTP/2
    (
        re.compile(rf"{ALONE}(1[0-2])\.(\d{{1,2}})(?![\d.:/%‰°℃A-Za-z])"),
        lambda m: f"{read_out(m[1], 'zh')}点{digits(m[2])}",
    ),
    (
        re.compile(r"(?<![\d.])1[12]\d(?=\s?(?:[比到乘加减等+=<>*/-]|[A-Z]|赫兹))"),
        lambda match: amount(match[0]),
    ),
]
