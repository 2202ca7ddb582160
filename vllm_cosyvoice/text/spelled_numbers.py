"""Spells numbers with num2words, for languages without rules of their own."""

import re
from functools import cache

from num2words import CONVERTER_CLASSES, num2words

# Languages that write 1.000,5; the others write 1,000.5.
DECIMAL_COMMA = {
    "cs",
    "da",
    "de",
    "es",
    "fi",
    "fr",
    "hu",
    "id",
    "it",
    "nl",
    "no",
    "pl",
    "pt",
    "ro",
    "ru",
    "sv",
    "tr",
    "uk",
    "vi",
}
HUNDREDS = {"de", "nl", "sv", "no", "da"}  # languages that read 1995 as "nineteen hundred ninety-five"
COMMA_STYLE = re.compile(r"\d{1,3}(?:[. ]\d{3})+(?!\d)(?:,\d+)?|\d+(?:,\d+)?")
POINT_STYLE = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
TEARS = re.compile(r"(?<=\d)[.:/-](?=\d)")
MOST_DIGITS = 15
NAMED = ("%", "€", "$", "£", "°C", "km/h", "km", "kg")
NAMES = {
    "de": "Prozent|Euro|Dollar|Pfund|Grad Celsius|Kilometer pro Stunde|Kilometer|Kilogramm",
    "fr": "pour cent|euros|dollars|livres|degrés|kilomètres par heure|kilomètres|kilos",
    "es": "por ciento|euros|dólares|libras|grados|kilómetros por hora|kilómetros|kilos",
    "it": "per cento|euro|dollari|sterline|gradi|chilometri orari|chilometri|chili",
    "pt": "por cento|euros|dólares|libras|graus|quilômetros por hora|quilômetros|quilos",
    "nl": "procent|euro|dollar|pond|graden|kilometer per uur|kilometer|kilo",
    "ru": "процентов|евро|долларов|фунтов|градусов|километров в час|километров|килограммов",
}
SIGN_AHEAD = re.compile(r"([€$£])\s?(\d[\d.,]*\d|\d)")
COINS = re.compile(r"(\d+),(\d\d)\s?([€$£])")
GERMAN_DAY = re.compile(
    r"\b(\d{1,2})\.(?=\s(?:Jan|Feb|März|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez"
    r"|Jahrhundert|Platz|Klasse|Stock|Etage|Mal|Tag|Kapitel|Weltkrieg|Geburtstag))"
)
GERMAN_DATE = re.compile(r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(?=\d{4}\b)")
FRENCH_TIME = re.compile(r"(?<![\w])(\d{1,2})\s?h(?:\s?(\d\d))?(?!\w)")
TELEPHONE = re.compile(r"(?<![\d.,])0\d{1,5}[-/ ]\d{4,}")
CLOCK = {"de": " Uhr ", "fr": " heures ", "nl": " uur "}
TIME = re.compile(r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?![\d:])(?: (?:Uhr|uur|heures)\b)?")


def read(line: str, language: str) -> str:
    """Spell the numbers in `line` in `language`. If num2words does not support the language, return it unchanged."""
    if language not in CONVERTER_CLASSES or not any(character.isdigit() for character in line):
        return line
    names = dict(zip(NAMED, NAMES[language].split("|"), strict=True)) if language in NAMES else {}
    line = SIGN_AHEAD.sub(r"\2 \1", line)
    line = re.sub(r"(?<=\d)\s?[–~](?=\d)", "-", line)
    if language in CLOCK:
        line = TIME.sub(lambda time: (time[1] + CLOCK[language] + ("" if time[2] == "00" else time[2])).strip(), line)
    line = COINS.sub(lambda money: f"{money[1]} {names.get(money[3], money[3])} {money[2]}", line)
    if language == "de":
        line = GERMAN_DATE.sub(
            lambda day: f"{_words(day[1], 'de', 'ordinal')}n {_words(day[2], 'de', 'ordinal')}n ", line
        )
        line = GERMAN_DAY.sub(lambda day: _words(day[1], "de", "ordinal") + "n", line)
    if language == "fr":
        line = FRENCH_TIME.sub(lambda time: f"{time[1]} heures {time[2] or ''}", line)
    line = TELEPHONE.sub(lambda number: _one_by_one(number[0], language), line)
    for sign, name in names.items():
        line = re.sub(rf"(?<=\d)\s?{re.escape(sign)}(?![\w])", f" {name}", line)
    pattern = COMMA_STYLE if language in DECIMAL_COMMA else POINT_STYLE
    spelled = pattern.sub(lambda number: _spell(number[0], language), _apart(line, pattern))
    return " ".join(spelled.split())


def _apart(line: str, pattern: re.Pattern[str]) -> str:
    """Replace marks that separate two numbers ("3-5", "2.4.1") with spaces, so that both are spelled."""
    in_number = {place for match in pattern.finditer(line) for place in range(match.start(), match.end())}
    return TEARS.sub(lambda mark: mark[0] if mark.start() in in_number else " ", line)


def _spell(written: str, language: str) -> str:
    comma = language in DECIMAL_COMMA
    digits = re.sub(r"[. ]", "", written).replace(",", ".") if comma else written.replace(",", "")
    whole, _, decimals = digits.partition(".")
    if len(whole) > MOST_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        return _one_by_one(digits, language)
    if decimals:
        point = _words("0.5", language).split()[1:-1]
        if not point:  # the language writes it in one word
            return _words(digits, language)
        return " ".join([_words(whole, language), *point, _one_by_one(decimals, language)])
    if language in HUNDREDS and re.fullmatch(r"1[1-9]\d\d", written):
        return _words(whole, language, "year")
    return _words(whole, language)


def _one_by_one(digits: str, language: str) -> str:
    return " ".join(_words(digit, language) for digit in digits if digit.isdecimal())


@cache
def _words(digits: str, language: str, to: str = "cardinal") -> str:
    value = float(digits) if "." in digits else int(digits)
    return str(num2words(value, lang=language, to=to))
