"""Years of two digits, and hours."""

import re

from vllm_cosyvoice.text.chinese.numbers import digits
from vllm_cosyvoice.text.chinese.patterns import DASH
from vllm_cosyvoice.text.rules import Rule

LASTS = "代|前|后|来|间|内|期|以|左右|多|的?历史|的?时间|的?寿命|的?经验|的?工龄|如一日|之|过去|才|就|没|不|[（(]"
DATED = (
    r"(?:出生|生人?|毕业|入学|高考|入伍|入职|参军|结婚|[春夏秋冬初底末]|世界杯|奥运|亚运|欧洲杯|金融|非典|洪水"
    r"|\d{1,2}月|[款版届级]|开始|起)"
)
TIME_RULES: list[Rule] = [
    (
        re.compile(r"(?<=[（(])(1\d{3}|20\d\d)\s?[-–—~～]\s?(1\d{3}|20\d\d)(?=[）)])"),
        lambda match: f"{digits(match[1])}到{digits(match[2])}",
    ),
    (
        re.compile(rf"(?<!\d)((?:19|20)?\d\d)(?:{DASH}|/)((?:19|20)?\d\d)(?=学年|财年|赛季|年度)"),
        lambda match: f"{digits(match[1])}到{digits(match[2])}",
    ),
    (re.compile(rf"(?<!\d)([089]\d){DASH}(\d\d)年"), lambda match: f"{digits(match[1])}到{digits(match[2])}年"),
    (re.compile(rf"(?<![\d.近约过第满了达])(\d\d)年(?={DATED})"), lambda match: digits(match[1]) + "年"),
    (
        re.compile(rf"(?<![\d.近约过第满了达这共活住等有])(0\d|[89]\d)年(?!{LASTS})"),
        lambda match: digits(match[1]) + "年",
    ),
    (re.compile(r"(?<!\d)([06-9][05])(?=后(?!来))"), lambda match: digits(match[1])),
    (re.compile(r"(?<!\d)([0-289]\d)(?=[级届](?:的?学|新生|毕业|校友|本科|研究))"), lambda match: digits(match[1])),
    (re.compile(r"(?<!\d)2点(?!\d+(?!\d*[分刻]))|(?<!\d)2点(?=[0-5]\d(?![\d倍元米%]))"), "两点"),
    (re.compile(r"(?<=点)2分(?!钟)"), "二分"),
    (re.compile(r"(?<=月)2(?=[日号])|(?<=星期)2(?!\d)|(?<=礼拜)2(?!\d)|(?<=第)2(?!\d)"), "二"),
    (re.compile(r"(?<=点)0([1-9])(?=分)"), lambda match: "零" + digits(match[1])),
]
