"""Reads Chinese text: years, telephone numbers, units, dots and dashes; wetext reads the remaining numbers."""

import re
import string

from vllm_cosyvoice.text.chinese.addresses import ADDRESS_RULES
from vllm_cosyvoice.text.chinese.codes import CODE_RULES
from vllm_cosyvoice.text.chinese.counts import COUNT_RULES
from vllm_cosyvoice.text.chinese.dots import DOT_RULES
from vllm_cosyvoice.text.chinese.formulas import FORMULA_RULES
from vllm_cosyvoice.text.chinese.lists import LIST_RULES
from vllm_cosyvoice.text.chinese.money import MONEY_RULES
from vllm_cosyvoice.text.chinese.numbers import PLAIN_RULES
from vllm_cosyvoice.text.chinese.ranges import RANGE_RULES
from vllm_cosyvoice.text.chinese.roman import ROMAN_RULES
from vllm_cosyvoice.text.chinese.signs import SIGN_RULES
from vllm_cosyvoice.text.chinese.times import TIME_RULES
from vllm_cosyvoice.text.chinese.units import BARE_UNIT_RULES, UNIT_RULES, UNIT_SIGN_RULES
from vllm_cosyvoice.text.chinese.writing import WRITING_RULES
from vllm_cosyvoice.text.grammar import read_out
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.rules import Rules

WIDE = str.maketrans(
    {chr(ord(sign) + 0xFEE0): sign for sign in string.digits + string.ascii_letters + "%"}
    | {"∶": ":", "．": ".", "＝": "=", "＋": "+", "µ": "μ"}
)
WRITTEN_MARKS = str.maketrans({"²": "平方", "³": "立方"})
BRACKETS = str.maketrans("", "", "（）【】`")
TRAILING_COMMAS = re.compile(r"[，,、]+$")
# A space is kept only between two ASCII characters or hidden words that are not spaces themselves.
WORD_MARK = rf"\x00-\x1f\x21-\x7f{HIDDEN}"
LOOSE_SPACE = re.compile(rf"(?<![{WORD_MARK}]) | (?![{WORD_MARK}])")

# wetext is slow, so it gets only the numbers, each with a few adjacent characters that may belong to it.
NEIGHBOUR = rf"[^，。！？；、“”\"\\\n{HIDDEN}]"
UNIT_LETTERS = r"[A-Za-z/%°℃²³]"
NUMBERS = re.compile(
    rf"{NEIGHBOUR}{{0,2}}\d(?:{UNIT_LETTERS}{{0,7}}{NEIGHBOUR}{{0,4}}\d)*{UNIT_LETTERS}{{0,7}}(?:(?!\d){NEIGHBOUR}){{0,4}}"
)
HAS_DIGIT = re.compile(r"\d")
TEXT_RULES = Rules(
    ADDRESS_RULES,
    LIST_RULES,
    ROMAN_RULES,
    UNIT_SIGN_RULES,
    FORMULA_RULES,
    BARE_UNIT_RULES,
    SIGN_RULES,
)
NUMBER_RULES = Rules(
    WRITING_RULES,
    CODE_RULES,
    TIME_RULES,
    COUNT_RULES,
    RANGE_RULES,
    MONEY_RULES,
    UNIT_RULES,
    PLAIN_RULES,
)
END_RULES = Rules(DOT_RULES)


def read(line: str) -> str:
    """Convert one line of text to the Chinese words to speak."""
    line = TEXT_RULES.apply(line.translate(WIDE))
    if HAS_DIGIT.search(line):
        line = NUMBER_RULES.apply(line)
        line = NUMBERS.sub(lambda part: read_out(part[0], "zh"), line)
    line = close_up(END_RULES.apply(line)).translate(WRITTEN_MARKS)
    line = line.replace(" - ", "，").translate(BRACKETS).replace("——", " ")
    return TRAILING_COMMAS.sub("。", line)


def close_up(line: str) -> str:
    """Remove the spaces that Chinese and Japanese do not use."""
    return LOOSE_SPACE.sub("", line)
