"""Reads Korean text: Sino-Korean numbers, and native ones before counters."""

import re
import unicodedata

from num2words import num2words

from vllm_cosyvoice.text.roman import NUMERAL, value
from vllm_cosyvoice.text.rules import Rule, Rules
from vllm_cosyvoice.text.unit_signs import UNIT_SIGN

# Numbers from 1 to 99 are native before these counters.
COUNTERS = (
    r"시간|시(?!속)|살|명|개(?!월|년|국)|마리|권|병|잔|장|대(?!로)|사람"
    r"|가지|그루|켤레|송이|채|벌|번째|군데|곳|달(?!러)|그릇|알|봉지|조각|줄|척|쌍|손님"
)
UNITS = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
DIGITS = dict(zip("0123456789", "공일이삼사오육칠팔구", strict=True))
MONTHS = {"6": "유", "10": "시"}
SIGNS = {
    "%": " 퍼센트", "℃": "도", "°C": "도", "km/h": " 킬로미터", "km": " 킬로미터", "cm": " 센티미터",
    "mm": " 밀리미터", "m": " 미터", "kg": " 킬로그램", "g": " 그램", "ml": " 밀리리터", "L": " 리터",
    "m²": " 제곱미터", "㎡": " 제곱미터", "km²": " 제곱킬로미터", "mg": " 밀리그램", "mL": " 밀리리터",
    "TB": " 테라바이트", "GB": " 기가바이트", "MB": " 메가바이트", "GHz": " 기가헤르츠", "MHz": " 메가헤르츠",
    "Hz": " 헤르츠", "kW": " 킬로와트", "kWh": " 킬로와트시", "W": " 와트", "V": " 볼트", "t": " 톤",
    "μg": " 마이크로그램", "m³": " 세제곱미터", "cm³": " 세제곱센티미터", "dL": " 데시리터",
    "kcal": " 킬로칼로리", "hPa": " 헥토파스칼",
}  # fmt: skip
SIGN = "|".join(map(re.escape, sorted(SIGNS, key=len, reverse=True)))
SPEEDS = {"h": "시속", "s": "초속", "min": "분속"}
CURRENCIES = {"$": " 달러", "€": " 유로", "£": " 파운드", "¥": " 엔", "₩": "원"}
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
# Numbers that are read digit by digit.
NUMBERED = "번호|코드|계좌|사번|학번"
EMERGENCY = r"(?<![\d.,])(?:112|114|119)(?=\s?(?:에|로|번|구급|신고|를 눌))"
TELEPHONE = re.compile(r"(?<![\d-])0\d{1,2}-\d{3,4}-\d{4}(?![\d-])|(?<![\d-])1\d{3}-\d{4}(?![\d-])")


def sino(digits: str) -> str:
    """A number in Sino-Korean words: "10,000" → "만"."""
    whole, point, decimals = digits.replace(",", "").partition(".")
    if len(whole) > 16 or (len(whole) > 1 and whole[0] == "0"):
        return _one_by_one(whole)
    spoken = str(num2words(int(whole), lang="ko")).replace(" ", "") if int(whole) else "영"
    return f"{spoken}점{_one_by_one(decimals).replace('공', '영')}" if point else spoken


def native(digits: str) -> str:
    """A native number from 1 to 99, as before a counter: "20" → "스무"."""
    if int(digits) == 20:
        return "스무"
    return TENS[int(digits) // 10] + UNITS[int(digits) % 10]


def _one_by_one(digits: str) -> str:
    return "".join(DIGITS[digit] for digit in digits)


def _with_ending(before: str) -> str:
    """The particle of a result after `before`: 은 after a final consonant, else 는."""
    return "은 " if (ord(before) - 0xAC00) % 28 else "는 "


# Two native numbers in one word: "1~2명" is 한두 명.
NEIGHBOURS = {"1": "한두", "2": "두세", "3": "서너", "4": "네다섯", "5": "대여섯", "6": "예닐곱", "7": "일고여덟"}
SINGLES = {"한": "하나", "두": "둘", "세": "셋", "네": "넷"}


def _counted_range(first: str, last: str) -> str:
    if int(last) == int(first) + 1 and first in NEIGHBOURS:
        return NEIGHBOURS[first]
    start = native(first)
    return f"{SINGLES.get(start, start)}에서 {native(last)}"


# Names that are read in English.
NAMES = {
    "A4": "A포",
    "MP3": "MP쓰리",
    "MP4": "MP포",
    "3D": "쓰리D",
    "2D": "투D",
    "4K": "포K",
    "B2B": "B투B",
    "B2C": "B투C",
}

RULES: list[Rule] = [
    (re.compile(r"https?://"), ""),
    (re.compile(r"(?<=[A-Za-z\d])@(?=[A-Za-z\d])"), " 골뱅이 "),
    (re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])"), " 점 "),
    (re.compile(rf"(?<![A-Za-z\d])({'|'.join(NAMES)})(?![A-Za-z\d])"), lambda match: NAMES[match[1]]),
    UNIT_SIGN,
    (re.compile("[Ⅰ-Ⅻ]+"), lambda match: value(match[0])),
    (re.compile(rf"(?<=[가-힣] )({NUMERAL})(?=세(?![가-힣]))"), lambda match: value(match[1])),
    (re.compile(r"(?<=[가-힣])~+(?=$|[\s.!?])"), ""),
    (re.compile(r"(?<=[월화수목금토일시분])\s?[~-]\s?(?=[월화수목금토일](?![가-힣])|\d)"), "에서 "),
    (re.compile(r"(?<![\d/])(\d{4})/(\d{1,2})/(\d{1,2})(?![\d/])"), r"\1-\2-\3"),
    (
        re.compile(r"(?<!\d)\d{4}(?:[ -]\d{4}){3}(?!\d)"),
        lambda match: ", ".join(map(_one_by_one, re.split("[ -]", match[0]))),
    ),
    (
        re.compile(rf"((?:{NUMBERED})(?:[는은:]|\s)*)(\d{{3,}}(?:-\d+)*)(?!\d|[.,]\d)"),
        lambda match: match[1] + ", ".join(map(_one_by_one, match[2].split("-"))),
    ),
    (re.compile(EMERGENCY), lambda match: _one_by_one(match[0])),
    (re.compile(r"(?<=\d)\s?[-−]\s?(?=[\d\s.]+=)"), " 빼기 "),
    (re.compile(r"(?<=\d)\s?\+\s?(?=\d)"), " 더하기 "),
    (re.compile(r"(?<=\d)\s?×\s?(?=\d)"), " 곱하기 "),
    (re.compile(r"(?<=\d)\s?÷\s?(?=\d)"), " 나누기 "),
    (re.compile(r"(?<![\w.,])\+(?=\d)"), "플러스 "),
    (re.compile(r"±\s?"), "플러스마이너스 "),
    (re.compile(r"(?<=\d)°\s?(?=\d+(?:\.\d+)?′)"), "도 "),
    (re.compile(r"(?<=\d)′\s?"), "분 "),
    (
        re.compile(r"(?<![\d/.])(\d{2,3})/(\d{2,3})(?![\d/.])"),
        lambda match: f"{match[1]}에 {match[2]}" if int(match[1]) > int(match[2]) else match[0],
    ),
    (
        re.compile(r"(?:[시초분]속\s)?(?<![\d.,])(\d[\d.,]*)\s?(k?m)/(h|s|min)(?![A-Za-z])"),
        lambda match: f"{SPEEDS[match[3]]} {match[1]}{match[2]}",
    ),
    (
        re.compile(rf"(?<![\d.,])(\d[\d.,]*)\s?({SIGN}|원|명|개)/({SIGN}|명|개|인|일|년|회|시간)(?![A-Za-z²³])"),
        lambda match: f"{SIGNS.get(match[3], f'1{match[3]}').strip()}당 {match[1]}{match[2]}",
    ),
    (
        re.compile(r"(?<![\d.])(\d{4})\.\s?(\d{1,2})\.\s?(\d{1,2})\.?(?!\d)"),
        lambda match: f"{match[1]}년 {int(match[2])}월 {int(match[3])}일",
    ),
    (
        re.compile(r"(?<![\d.])(\d+(?:\.\d+){2,})(?![\d.]*\d)"),
        lambda match: " 점 ".join(sino(part) for part in match[1].split(".")),
    ),
    # 대 between two numbers is "to"; after a ten it is an age.
    (re.compile(r"(?<!\d)(\d{1,3})(\s?)대(\s?)(?=\d)"), lambda match: f"{sino(match[1])}{match[2]}대{match[3]}"),
    (re.compile(r"(?<!\d)([1-9]0)대"), lambda match: f"{sino(match[1])}대"),
    (re.compile(r"(?<=\()(1\d{3}|20\d\d)\s?[-~]\s?(1\d{3}|20\d\d)(?=\))"), r"\1에서 \2"),
    (TELEPHONE, lambda match: ", ".join(map(_one_by_one, match[0].split("-")))),
    (
        re.compile(rf"([{''.join(CURRENCIES)}])\s?({NUMBER})(\s?[천만억조]+)?"),
        lambda match: match[2] + (match[3] or "") + CURRENCIES[match[1]],
    ),
    (re.compile(r"(?<![\d:])(\d{1,2}):00(?![\d:])"), lambda match: f"{int(match[1])}시"),
    (re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])"), lambda match: f"{int(match[1])}시 {int(match[2])}분"),
    (re.compile(r"(?<=[시분월일원도%℃])\s?[–~～-]\s?(?=-?\d|오[전후]|영[상하])"), "에서 "),
    (re.compile(r"(?<![\d:])(\d{1,3}):(\d{1,3})(?![\d:])"), lambda match: f"{sino(match[1])} 대 {sino(match[2])}"),
    (
        re.compile(r"(?<![\d.,-])(\d{4})-(\d{1,2})-(\d{1,2})(?![\d-])"),
        lambda match: f"{match[1]}년 {int(match[2])}월 {int(match[3])}일",
    ),
    (
        re.compile(r"(?<![\d.-])(\d{1,3})-(\d{1,3})(?![\d.-])"),
        lambda match: (
            f"{sino(match[1])} 대 {sino(match[2])}" if int(match[1]) >= int(match[2]) else f"{match[1]}~{match[2]}"
        ),
    ),
    (
        re.compile(rf"(?<![\d.,제])([1-9]\d?)\s?[~～–]\s?([1-9]\d?)(?=\s?(?:{COUNTERS}))"),
        lambda match: _counted_range(match[1], match[2]),
    ),
    (re.compile(r"(?<=\d)(%?)\s?[–~～-]\s?(?=\d)"), r"\1에서 "),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)"), " "),
    (re.compile(r"(?<![\w.,])-(?=\d)"), "마이너스 "),
    (re.compile(rf"(?<=\d)\s?({SIGN})(?![A-Za-z])"), lambda match: SIGNS[match[1]]),
    (re.compile(r"(?<![\d.,])(6|10)(?=월)"), lambda match: MONTHS[match[1]]),
    (re.compile(r"(?<![\d.,])(1[3-9]|2[0-4])(?=\s?시(?!간))"), lambda match: sino(match[1])),
    (re.compile(r"(?<![\d/])(\d+)/(\d+)(?![\d/])"), r"\2분의 \1"),
    (re.compile(rf"(?<![\d.,제])([1-9]\d?)(?=\s?(?:{COUNTERS}))"), lambda match: native(match[1])),
    (
        re.compile(
            r"((?:하루|매일|일주일에|한 달에|총)\s)([1-9])(?=번)|(?<![\d.,제])([1-9])(?=번(?:씩|이나|정도|연속|만에))"
        ),
        lambda match: (match[1] or "") + native(match[2] or match[3]),
    ),
    (re.compile(NUMBER), lambda match: sino(match[0])),
    (re.compile(r"([가-힣])\s?=\s?(?=[가-힣])"), lambda match: match[1] + _with_ending(match[1])),
]
TEXT_RULES = Rules(RULES)


def read(line: str) -> str:
    """Convert one line of text to the Korean words to speak."""
    line = "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in line)
    return " ".join(TEXT_RULES.apply(line).split())
