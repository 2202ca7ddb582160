"""Addresses and names of files: dots, signs and digits are read one by one."""

import re

from vllm_cosyvoice.text.chinese.numbers import digits
from vllm_cosyvoice.text.chinese.patterns import HAN
from vllm_cosyvoice.text.file_names import EXTENSION
from vllm_cosyvoice.text.rules import Rule

SPELLED_SIGNS = str.maketrans({".": "点", "@": "艾特", "_": "下划线", "/": "斜杠", "?": "问号", "=": "等于", "&": "和"})
ADDRESS_RULES: list[Rule] = [
    (re.compile(r"https?://"), ""),
    (
        re.compile(
            r"(?<![A-Za-z\d.+_-])[A-Za-z\d.+_-]+@[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)+|\bwww\.[A-Za-z\d./?=&_-]*[A-Za-z\d]"
            rf"|(?<![A-Za-z\d.+_-])[A-Za-z\d_-]+(?:\.[A-Za-z\d_]+)*\.{EXTENSION}(?![A-Za-z\d])",
            re.ASCII,
        ),
        lambda match: digits(match[0].translate(SPELLED_SIGNS)),
    ),
    (re.compile(rf"@(?=[{HAN}])"), "艾特"),
    (re.compile(rf"(?<![CF])#+(?=[{HAN}])|(?<=[{HAN}])#"), ""),
]
