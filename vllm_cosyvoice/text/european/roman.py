"""Roman numerals of rulers, centuries and chapters in European languages."""

import re

from vllm_cosyvoice.text.european.ordinals import GERMAN_NOUNS, ordinal
from vllm_cosyvoice.text.roman import MORE_LETTERS, NUMERAL, value
from vllm_cosyvoice.text.rules import Rule

CENTURY = {"es": r"siglos?|s\.", "it": r"secol[oi]|sec\.", "pt": r"séculos?|séc\."}
SHORT_CENTURY = {"s.": "siglo", "sec.": "secolo", "séc.": "século"}
NAME = r"(?<![\w.])([A-ZÀ-ÞА-Я][^\W\d_]+)"
NO_NAMES = r"(?!(?:Type|Typ|Tipo|Vitamine?|Vitamina|Plan|Klasse|Classe|Clase|Kategorie)\b)"


def roman_rules(language: str) -> list[Rule]:
    """Rules for the Roman numerals of `language`."""
    longer = rf"({MORE_LETTERS}|V)"
    if language == "de":
        return [
            (re.compile(rf"(?<!\w)({NUMERAL})(?=\. (?:{GERMAN_NOUNS}))"), lambda match: value(match[1])),
            (
                re.compile(rf"{NAME} ({NUMERAL})\.(?=\s+[a-zäöü]|,|\s*$)"),
                lambda match: (
                    f"{match[1]} der {ordinal(value(match[2]), 'de').capitalize()}"
                    + ("." if match.end() == len(match.string) else "")
                ),
            ),
            (re.compile(rf"({NAME}\.?) ({MORE_LETTERS})\b(?!\.)"), lambda match: f"{match[1]} {value(match[3])}"),
        ]
    if language == "fr":
        return [
            (re.compile(r"\b(?:Ier|1er)\b"), "premier"),
            (
                re.compile(rf"(?<!\w)({NUMERAL})e(?:r|me)?\b(?=(?: (?:et|au) [IVX]+e)? siècle)"),
                lambda m: ordinal(value(m[1]), "fr"),
            ),
            (re.compile(rf"{NO_NAMES}{NAME} {longer}\b"), lambda match: f"{match[1]} {value(match[2])}"),
        ]
    if language in CENTURY:
        century = rf"\b({CENTURY[language]}) ({NUMERAL})\b"

        def of_a_century(digits: str) -> str:
            return ordinal(digits, language) if language == "it" else digits

        def of_a_ruler(digits: str) -> str:
            return ordinal(digits, language) if language == "it" or int(digits) <= 10 else digits

        return [
            (re.compile(century), lambda m: f"{SHORT_CENTURY.get(m[1], m[1])} {of_a_century(value(m[2]))}"),
            (re.compile(rf"\b({NUMERAL})(?= secolo)"), lambda match: ordinal(value(match[1]), "it")),
            (
                re.compile(rf"{NO_NAMES}{NAME} {longer}\b"),
                lambda match: f"{match[1]} {of_a_ruler(value(match[2]))}",
            ),
        ]
    if language == "nl":
        return [(re.compile(rf"{NO_NAMES}{NAME} {longer}\b"), lambda m: f"{m[1]} de {ordinal(value(m[2]), 'nl')}")]
    if language == "ru":
        return [
            (re.compile(rf"(?<!\w)({NUMERAL})(?= век(?:ах|ов|а|и)?\b)"), lambda m: ordinal(value(m[1]), "ru")),
            (re.compile(rf"(?<!\w)({NUMERAL})(?= веке\b)"), lambda match: ordinal(value(match[1]), "ru", case="p")),
            (
                re.compile(rf"\b([А-ЯЁ][а-яё]+) ({NUMERAL})\b"),
                lambda m: f"{m[1]} {ordinal(value(m[2]), 'ru', gender='f' if m[1].endswith(('а', 'я')) else 'm')}",
            ),
        ]
    return []
