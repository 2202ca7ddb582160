"""Reads Korean text: Sino-Korean numbers, and native ones before counters."""

import re
import unicodedata

from num2words import num2words

from vllm_cosyvoice.text.rules import Rule, apply

# Numbers from 1 to 99 are native before these counters.
COUNTERS = (
    r"시간|시(?!속)|살|명|개(?!월|년|국)|마리|권|병|잔|장|대(?!로)|사람"
    r"|가지|그루|켤레|송이|채|벌|번째|군데|곳|달(?!러)|그릇|조각|줄|척|쌍|손님"
)
UNITS = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
DIGITS = dict(zip("0123456789", "공일이삼사오육칠팔구", strict=True))
MONTHS = {"6": "유", "10": "시"}
SIGNS = {
    "%": " 퍼센트", "℃": "도", "°C": "도", "km/h": " 킬로미터", "km": " 킬로미터", "cm": " 센티미터",
    "mm": " 밀리미터", "m": " 미터", "kg": " 킬로그램", "g": " 그램", "ml": " 밀리리터", "L": " 리터",
    "m²": " 제곱미터", "㎡": " 제곱미터", "km²": " 제곱킬로미터", "mg": " 밀리그램", "mL": " 밀리리터",
    "TB": " 테라바이트", "GB": " 기가바이트", "MB": " 메가바이트",
}  # fmt: skip
CURRENCIES = {"$": " 달러", "€": " 유로", "£": " 파운드", "¥": " 엔", "₩": "원"}
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
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


# Names that are read in English.
NAMES = {"A4": "A포", "MP3": "MP쓰리", "MP4": "MP포", "3D": "쓰리D", "2D": "투D", "4K": "포K"}

RULES: list[Rule] = [
    (re.compile(r"https?://"), ""),
    (re.compile(r"(?<=[A-Za-z\d])@(?=[A-Za-z\d])"), " 골뱅이 "),
    (re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])"), " 점 "),
    (re.compile(rf"(?<![A-Za-z\d])({'|'.join(NAMES)})(?![A-Za-z\d])"), lambda match: NAMES[match[1]]),
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
    (re.compile(r"(?<![\d:])(\d{1,2}):00(?![\d:])"), r"\1시"),
    (re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])"), lambda match: f"{match[1]}시 {int(match[2])}분"),
    (re.compile(r"(?<![\d:])(\d{1,3}):(\d{1,3})(?![\d:])"), lambda match: f"{sino(match[1])} 대 {sino(match[2])}"),
    (
        re.compile(r"(?<![\d.,-])(\d{4})-(\d{1,2})-(\d{1,2})(?![\d-])"),
        lambda match: f"{match[1]}년 {int(match[2])}월 {int(match[3])}일",
    ),
    (re.compile(r"(?<=[℃도%])\s?[–~～]\s?(?=-?\d)"), "에서 "),
    (re.compile(r"(?<=\d)(%?)\s?[–~～-]\s?(?=\d)"), r"\1에서 "),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)"), " "),
    (re.compile(r"(?<![\w.,])-(?=\d)"), "마이너스 "),
    (re.compile(rf"(?<=\d)\s?({'|'.join(map(re.escape, SIGNS))})(?![A-Za-z])"), lambda match: SIGNS[match[1]]),
    (re.compile(r"(?<![\d.,])(6|10)(?=월)"), lambda match: MONTHS[match[1]]),
    (re.compile(r"(?<![\d.,])(1[3-9]|2[0-4])(?=\s?시(?!간))"), lambda match: sino(match[1])),
    (re.compile(r"(?<![\d/])(\d+)/(\d+)(?![\d/])"), r"\2분의 \1"),
    (re.compile(rf"(?<![\d.,제])([1-9]\d?)(?=\s?(?:{COUNTERS}))"), lambda match: native(match[1])),
    (re.compile(NUMBER), lambda match: sino(match[0])),
]


def read(line: str) -> str:
    """Convert one line of text to the Korean words to speak."""
    line = "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in line)
    return " ".join(apply(RULES, line).split())
