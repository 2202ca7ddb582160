"""两, not 二, before what is counted; wetext knows some of these words."""

import re

from vllm_cosyvoice.text.chinese.numbers import digits
from vllm_cosyvoice.text.rules import Rule

COUNTED = (
    "公斤|千克|克|升|毫升|吨|公里|千米|厘米|毫米|次(?!方|元)|种|倍|年(?!级|班|代)|项|份|杯|碗|瓶|盒|包|袋|片|粒|颗|道|门|首|部|台|辆|条|件|张|本|支|枝|把"
    r"|座|间|家|所|名|批|套|段|篇|句|遍|趟|场|周|棵|顿|根|箱|页(?!码)|步|口|双|对(?!\d)|幅|盘|束|匹|头|扇|封|架|艘|滴|勺|成|折|股|阵|圈|晚|代人|节(?!日)|题|款|轮|局|室(?!外|内)|毛|球|大勺|小勺|茶匙|汤匙|瓣|海里|光年|战(?=\d)|胜|负|張|條|間|雙|塊|點(?!\d)|歲"
)
COUNT_RULES: list[Rule] = [
    (re.compile(r"(?<!\d)2对2(?!\d)"), "二对二"),
    (re.compile(r"(?<![\d.])2(?=手|线城市|维|胎|奶|次元|次方|等|进制|战(?!\d))"), "二"),
    (re.compile(rf"(?<![\d.,:/第星周期点月~～–—到至-])2(?={COUNTED})"), "两"),
    (
        re.compile(r"(?<=[栋幢楼])(\d{1,2})(?=单元)"),
        lambda match: digits(match[1]) if len(match[1]) == 1 else match[1],
    ),
]
