"""The marks of a list's items: a pause follows each, and precedes one inside a line."""

import re
import unicodedata

from vllm_cosyvoice.text.chinese.patterns import HAN
from vllm_cosyvoice.text.rules import Rule

ORDER = "一二三四五六七八九十"
ITEM_START = r"(?:^|(?<=[。；;，：:！？!?、]))\s*"
ITEM = re.compile(
    rf"(?<=[\w”》）)])\s*(?:[（(](\d{{1,2}}|[{ORDER}])[）)]|(?<![\d.])(\d{{1,2}}|(?<=\s)[B-H])[.．、])\s*"
    rf"(?=[A-Za-z“《{HAN}])"
)
LIST_RULES: list[Rule] = [
    (re.compile("[⑴-⒛㈠-㈩]"), lambda match: unicodedata.normalize("NFKC", match[0])),
    (re.compile(rf"(?<=[\w”》）)])\s+(?=[{ORDER}]{{1,3}}、)"), "，"),
    (re.compile(rf"(?<=\w)\s+(?=[（(](?:\d{{1,2}}|[{ORDER}]{{1,3}})[）)]\w)"), "，"),
    (re.compile(rf"{ITEM_START}[（(](\d{{1,2}}|[{ORDER}]{{1,3}})[）)]\s*(?=[\w“《])"), r"\1、"),
    (re.compile(rf"{ITEM_START}(\d{{1,2}}|[A-H]|[{ORDER}])[.．]\s*(?=[{HAN}])"), r"\1、"),
    (re.compile(rf"(?:^|(?<=[。；;]))\s*(\d{{1,2}}|[a-hA-H])[)）]\s*(?=[A-Za-z{HAN}])"), r"\1、"),
    (re.compile(r"(?:^|(?<=[：:。]))\s*[1一A]、.*"), lambda match: _items(match[0])),
]


def _items(text: str) -> str:
    """Mark the further items of a list that begins `text`; what does not continue its numbers is no mark."""
    last = 1

    def mark(match: re.Match[str]) -> str:
        nonlocal last
        name = match[1] or match[2]
        place = int(name) if name.isdecimal() else max(ORDER.find(name), "ABCDEFGH".find(name)) + 1
        if place not in (1, last + 1):
            return match[0]
        last = place
        return f"，{name}、"

    return ITEM.sub(mark, text)
