"""Roman numerals, of rulers, chapters and the like."""

import re
import unicodedata

from vllm_cosyvoice.text.chinese.patterns import HAN
from vllm_cosyvoice.text.roman import MORE_LETTERS, NUMERAL, value
from vllm_cosyvoice.text.rules import Rule

RULERS = (
    "亨利|路易|伊丽莎白|查理|查尔斯|拿破仑|爱德华|乔治|腓力|教皇|本笃|保罗|保禄|威廉|尼古拉|彼得|叶卡捷琳娜|理查"
    "|理查德|詹姆斯|腓特烈|卡洛斯|费利佩"
)
ROMAN_RULES: list[Rule] = [
    (re.compile(rf"({RULERS})([Ⅰ-Ⅻ]+)"), lambda match: match[1] + unicodedata.normalize("NFKC", match[2])),
    (re.compile(rf"({RULERS})({NUMERAL})(?:世)?(?![A-Za-z])"), lambda match: f"{match[1]}{value(match[2])}世"),
    (re.compile("[Ⅰ-Ⅻ]+"), lambda match: value(match[0])),
    (re.compile(rf"(?<![A-Za-z])({NUMERAL})(?=[期章级类型度卷部幕册篇])"), lambda match: value(match[1])),
    (re.compile(rf"(?<=[{HAN}])({MORE_LETTERS})(?![A-Za-z])"), lambda match: value(match[1])),
]
