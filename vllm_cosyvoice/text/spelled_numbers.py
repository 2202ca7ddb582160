"""Spells numbers with num2words, for languages without rules of their own."""

import re
from functools import lru_cache

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
NUM2WORDS = {"pt": "pt_BR"}  # its own "pt" is European Portuguese, and most texts are Brazilian
POINT = {"es": "coma"}  # where num2words has another word than the sign in the text
TELEPHONE = re.compile(r"(?<![\d.,])0\d{1,5}[-/ ]\d{4,}")


def read(line: str, language: str) -> str:
    """Spell the numbers in `line` in `language`. If num2words does not support the language, return it unchanged."""
    if language not in CONVERTER_CLASSES or not any(character.isdigit() for character in line):
        return " ".join(line.split())
    line = TELEPHONE.sub(lambda number: _one_by_one(number[0], language), line)
    pattern = COMMA_STYLE if language in DECIMAL_COMMA else POINT_STYLE
    spelled = pattern.sub(lambda number: spell_number(number[0], language), _apart(line, pattern))
    return " ".join(spelled.split())


def _apart(line: str, pattern: re.Pattern[str]) -> str:
    """Replace marks that separate two numbers ("3-5", "2.4.1") with spaces, so that both are spelled."""
    in_number = {place for match in pattern.finditer(line) for place in range(match.start(), match.end())}
    return TEARS.sub(lambda mark: mark[0] if mark.start() in in_number else " ", line)


def spell_number(written: str, language: str) -> str:
    """A number as it is written in `language`: in German, "1.000,5" is "eintausend Komma fünf"."""
    comma = language in DECIMAL_COMMA
    digits = re.sub(r"[. ]", "", written).replace(",", ".") if comma else written.replace(",", "")
    whole, _, decimals = digits.partition(".")
    if len(whole) > MOST_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        return _one_by_one(digits, language)
    if decimals and language == "ru":  # "пять десятых": tenths, hundredths, thousandths
        return _words(digits, language) if len(decimals) <= 3 else _one_by_one(digits, language)
    if decimals:
        point = [POINT[language]] if language in POINT else _words("0.5", language).split()[1:-1]
        if not point:  # the language writes it in one word
            return _words(digits, language)
        return " ".join([_words(whole, language), *point, _one_by_one(decimals, language)])
    if language in HUNDREDS and re.fullmatch(r"1[1-9]\d\d", written):
        return _words(whole, language, "year")
    return _words(whole, language)


def _one_by_one(digits: str, language: str) -> str:
    return " ".join(_words(digit, language) for digit in digits if digit.isdecimal())


@lru_cache(maxsize=4096)
def _words(digits: str, language: str, to: str = "cardinal") -> str:
    value = float(digits) if "." in digits else int(digits)
    spelled = str(num2words(value, lang=NUM2WORDS.get(language, language), to=to))
    return spelled.replace(",", "") if language == "pt" else spelled
