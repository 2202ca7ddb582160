"""Reads Japanese text: wetext's grammar, and rules that it lacks."""

import re

from vllm_cosyvoice.text.chinese import close_up
from vllm_cosyvoice.text.grammar import read_out
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.roman import NUMERAL, value
from vllm_cosyvoice.text.rules import Rule, Rules
from vllm_cosyvoice.text.unit_signs import UNIT_SIGN

COUNTED = dict(
    zip("123456789", ["ひと", "ふた", "みっ", "よっ", "いつ", "むっ", "なな", "やっ", "ここの"], strict=True)
)
DIGITS = dict(
    zip("0123456789", ["ゼロ", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう"], strict=True)
)
WIDE = str.maketrans("０１２３４５６７８９％：µ", "0123456789%:μ")
KANA = r"\u3041-\u3096\u30a1-\u30fa"
KANJI = r"\u4e00-\u9fff"
# Units that wetext does not know, alone and as parts of composed ones.
UNITS = {
    "μg": "マイクログラム", "mg": "ミリグラム", "kg": "キログラム", "g": "グラム", "mL": "ミリリットル",
    "ml": "ミリリットル", "dL": "デシリットル", "L": "リットル", "mmHg": "ミリエイチジー", "km": "キロメートル",
    "cm": "センチメートル", "mm": "ミリメートル", "m": "メートル", "kWh": "キロワット時", "kW": "キロワット",
    "W": "ワット", "V": "ボルト", "GHz": "ギガヘルツ", "MHz": "メガヘルツ", "Hz": "ヘルツ", "hPa": "ヘクトパスカル",
    "GB": "ギガバイト", "MB": "メガバイト", "kcal": "キロカロリー", "mol": "モル",
}  # fmt: skip
POWERS = {"²": "平方", "³": "立方", "": ""}
PER = {"h": "毎時", "s": "毎秒", "min": "毎分", "分": "毎分"}
UNIT = "|".join(sorted(UNITS, key=len, reverse=True))

ADDRESS_RULES: list[Rule] = [
    (re.compile(r"https?://"), ""),
    (re.compile(r"(?<=[A-Za-z\d])@(?=[A-Za-z\d])"), "アット"),
    (re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])"), "ドット"),
    (re.compile(r"(?<=[A-Za-z])/(?=$|[\s、。])"), ""),
    (re.compile(rf"#(?=[{KANA}{KANJI}])"), ""),
    UNIT_SIGN,
    (
        re.compile(r"(?<=第)[Ⅰ-Ⅻ]+|[Ⅰ-Ⅻ]+(?=[章部期型類世級巻])"),
        lambda match: value(match[0]),
    ),
    (re.compile(rf"(?<=[{KANA}ー])({NUMERAL})(?=世)"), lambda match: value(match[1])),
    (re.compile(rf"(?<=[{KANA}])[〜～~]+(?=$|[\s。、！？!?])"), "ー"),
    (re.compile(rf"(?<=[{KANJI}])\s?[〜～]\s?(?=[{KANJI}])"), "から"),
    (re.compile(r"(?<=[\w)²³])\s?[=＝]\s?(?=[\w(-])"), "イコール"),
]
DIGIT_RULES: list[Rule] = [
    (re.compile(r"(?<=\d)\s?(?:℃|°C)"), "度"),
    (re.compile(r"(?<=\d)°(?=\d+(?:\.\d+)?′)"), "度"),
    (re.compile(r"(?<=\d)′"), "分"),
    (re.compile(r"(?<=\d)″"), "秒"),
    (re.compile(r"(?<=\d)\s?×\s?(?=\d)"), "かける"),
    (re.compile(r"(?<=\d)\s?÷\s?(?=\d)"), "わる"),
    (re.compile(r"(?<=\d)\s?[-−]\s?(?=[\d\s.]+イコール)"), "マイナス"),
    (
        re.compile(r"(?<![\d.-])((?:19|20)\d\d)([-.])(\d{1,2})\2(\d{1,2})(?![\d-]|\.\d)"),
        lambda match: f"{match[1]}年{int(match[3])}月{int(match[4])}日",
    ),
    (re.compile(r"(?<!\d)0(\d)(?=[月日時分])"), r"\1"),
    (re.compile(r"(?<!\d)\d{4}(?:[ -]\d{4}){2,3}(?!\d)"), lambda match: _telephone(match[0].replace(" ", "-"))),
    (re.compile(r"(?<![\d.])110番"), "ひゃくとおばん"),
    (re.compile(r"(?<![A-Za-z])No\.\s?(?=\d)"), "ナンバー"),
    (
        re.compile(r"(?<![\d-])(?<!\+\d\d )(?!0)\d{1,4}(?:-\d{1,4}){2,}(?![\d-])"),
        lambda match: match[0].replace("-", "の"),
    ),
    (
        re.compile(r"\+(\d{1,3})[- ](\d{1,4}-\d{3,4}-\d{4})(?![\d-])"),
        lambda match: f"プラス{_telephone(match[1])}、{_telephone(match[2])}",
    ),
    (re.compile(r"(\d[\d,.]*(?:円|人|回|件))/(人|個|回|日|年|泊|本|枚|台|時間)"), r"1\2あたり\1"),
    (re.compile(r"(\d[\d,.]*(?:円|人|回|件))/月"), r"1か月あたり\1"),
    (re.compile(r"(?<=\d)h(?![A-Za-z/])"), "時間"),
    (re.compile(r"(?<=丁目)(\d{1,3})-(?=\d)"), r"\1の"),
    (
        re.compile(r"(?<![\d/.])(\d{2,3})/(\d{2,3})(?![\d/.])"),
        lambda match: f"{match[1]}の{match[2]}" if int(match[1]) > int(match[2]) else match[0],
    ),
    (re.compile(rf"(?<=\d)\s?({UNIT})([²³]?)/({UNIT})([²³]?)(?![A-Za-z])"), lambda match: _per(*match.groups())),
    (
        re.compile(rf"(?<=\d)\s?({UNIT})/(h|s|min|分)(?![A-Za-z²³])"),
        lambda match: f"{UNITS[match[1]]}{PER[match[2]]}",
    ),
    (re.compile(r"(?<=\d)\s?(μg|mL|mmHg|hPa|kWh|kcal)(?![A-Za-z/])"), lambda match: UNITS[match[1]]),
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
    (re.compile(r"(?<=[年月日時分度円人個回本歳名枚点階番])\s?[〜～~]\s?(?=\S)"), "から"),
    (re.compile(r"(?<=\d)(%?)\s?[–—~～〜-]\s?(?=\d)(?!\d+-)"), r"\1から"),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)"), ""),
    (re.compile(r"(?<=\d)\s?[〜～~-]\s?(?=[¥￥$]\d)"), "から"),
    (re.compile(r"[¥￥]\s?(\d[\d,.]*\d|\d)"), r"\1円"),
    (re.compile(r"\$\s?(\d[\d,.]*\d|\d)"), r"\1ドル"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d:])(\d{1,2}):00(?![\d:])"), r"\1時"),
    (re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])"), lambda match: f"{int(match[1])}時{int(match[2])}分"),
    (re.compile(r"(?<![\d.,])0(?=時)"), "零"),
    (re.compile(r"(?<![\d.,A-Za-z])0(?![\d.])"), "ゼロ"),
]
TEXT_RULES, NUMBER_RULES = Rules(ADDRESS_RULES), Rules(DIGIT_RULES)
CLAUSE = re.compile(rf"([、。！？「」『』（）\"\\\n{HIDDEN}]+)")
HAS_DIGIT = re.compile(r"\d")


def read(line: str) -> str:
    """Convert one line of text to the Japanese words to speak."""
    line = TEXT_RULES.apply(line.translate(WIDE))
    if HAS_DIGIT.search(line):
        parts = CLAUSE.split(NUMBER_RULES.apply(line))
        line = "".join(read_out(part, "ja") if HAS_DIGIT.search(part) else part for part in parts).replace(
            "〇点", "零点"
        )
    return close_up(line)


def _score_or_range(first: str, second: str) -> str:
    return f"{first}から{second}" if int(first) < int(second) else f"{first}対{second}"


def _telephone(digits: str) -> str:
    return "、".join("".join(DIGITS[digit] for digit in group) for group in digits.split("-"))


def _per(unit: str, power: str, per: str, per_power: str) -> str:
    return f"{POWERS[power]}{UNITS[unit]}毎{POWERS[per_power]}{UNITS[per]}"
