"""Dots of addresses, initials and abbreviations; the others end a sentence."""

import re

from vllm_cosyvoice.text.abbreviations import UNFINISHED
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.rules import Rule

KEPT_DOT = "\ue000"  # placeholder for the dot of an abbreviation until the other dots are replaced by 。
DOT_RULES: list[Rule] = [
    (re.compile(r"(?<![A-Za-z.])(Ph|M|a|p)\.(D|m)\."), r"\1\2"),
    (re.compile(r"(?<=[A-Za-z\d])@(?=[A-Za-z\d])"), "艾特"),
    (
        re.compile(r"(?<![A-Za-z.])(?:[A-Z]\.\s?){2,}"),
        lambda match: re.sub(r"[.\s]", "", match[0]) + ("。" if match.end() == len(match.string) else ""),
    ),
    (
        re.compile(rf"(?<![A-Za-z.])({UNFINISHED})\.(?![A-Za-z]\.)(?=\s?[\w{HIDDEN}])"),
        lambda match: match[1].replace(".", KEPT_DOT) + KEPT_DOT,
    ),
    (re.compile(r"(?<=[A-Za-z\d_])\.(?=[A-Za-z\d])"), "点"),
    (re.compile(r"(?:(?<=\s)|(?<=^))\.(?=[A-Za-z])"), "点"),
    (re.compile(r"\.(?=NET(?![A-Za-z]))"), "点"),
    (re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])"), " "),
    (re.compile(r"\.{2,}"), "。"),
    (re.compile(r"\."), "。"),
    (re.compile(KEPT_DOT), "."),
]
