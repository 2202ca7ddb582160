"""Ordinal numbers in European languages: "der 2. Weltkrieg", "1er", "2º", "80-е"."""

import re

from num2words import num2words

from vllm_cosyvoice.text.rules import Rule

GERMAN_NOUNS = (
    r"Jan|Feb|März|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrhundert|Jahrtausend|Platz|Klasse|Stock|Etage|Mal|Tag|Woche"
    r"|Kapitel|Weltkrieg|Geburtstag|Preis|Runde|Auflage|Liga|Stelle|Rang|Halbzeit|Bundesliga|Advent|Semester|Schritt"
    r"|Teil|Band|Absatz|Quartal|Generation|Ausgabe|Lebensjahr|Minute|FC|Spieltag|Jubiläum|Hochzeitstag"
)
STRONG_N = r"(?:am|im|vom|zum|zur|beim|dem|den|des|ab|bis|seit|unter|nach|vor|in der|auf der|von der)"
RUSSIAN_ENDINGS: dict[str, dict[str, object]] = {
    "й": {}, "ый": {}, "ой": {}, "я": {"gender": "f"}, "ая": {"gender": "f"}, "е": {"gender": "n"},
    "ое": {"gender": "n"}, "го": {"case": "g"}, "ого": {"case": "g"}, "му": {"case": "d"}, "ому": {"case": "d"},
    "м": {"case": "p"}, "ом": {"case": "p"}, "х": {"plural": True, "case": "g"}, "ых": {"plural": True, "case": "g"},
    "ю": {"gender": "f", "case": "a"}, "ую": {"gender": "f", "case": "a"}, "ые": {"plural": True},
}  # fmt: skip


def ordinal(digits: str, language: str, **form: object) -> str:
    """An ordinal number; `form` is num2words' case, gender and number for Russian."""
    return str(num2words(int(digits), lang=language, to="ordinal", **form))


def feminine(words: str) -> str:
    """The feminine of a Spanish, Italian or Portuguese ordinal: "décimo cuarto" → "décima cuarta"."""
    return re.sub(r"o\b", "a", words)


def german(digits: str, before: str) -> str:
    """A German ordinal with the ending that the words before it ask for."""
    ending = "n" if re.search(rf"\b{STRONG_N}\s+(?:\d{{1,3}}\.\s(?:und|bis|oder)\s)?$", before, re.IGNORECASE) else ""
    if not ending and not re.search(r"\b(?:der|die|das|diese[rs]?|jede[rs]?)\s+$", before, re.IGNORECASE):
        ending = "r"
    return ordinal(digits, "de") + ending


def ordinal_rules(language: str) -> list[Rule]:
    """Rules for the ordinals of `language`."""
    if language == "de":
        return [
            (
                re.compile(
                    rf"(?<![\w.,])(\d{{1,3}})\.(?=\s(?:{GERMAN_NOUNS}|(?:bis|und|oder)\s(?:zum\s)?\d{{1,3}}\.\s[A-Z]))"
                ),
                lambda match: german(match[1], match.string[: match.start()]),
            )
        ]
    if language == "fr":
        return [
            (re.compile(r"(?<![\w.,])1ers?\b"), "premier"),
            (re.compile(r"(?<![\w.,])1(?:[èe]?re|ère)\b"), "première"),
            (re.compile(r"(?<![\w.,])2nde?\b"), lambda match: "seconde" if match[0].endswith("e") else "second"),
            (re.compile(r"(?<![\w.,])(\d{1,4})(?:e|è|ème|eme|ième)s?\b"), lambda match: ordinal(match[1], "fr")),
        ]
    if language in ("es", "it", "pt"):
        degrees = r"°(?=\s?[a-z])|" if language == "it" else ""
        return [
            (re.compile(r"(?<![\w.,])([13])\.?er\b"), lambda match: ordinal(match[1], language)[:-1]),
            (re.compile(rf"(?<![\w.,-])(\d{{1,3}})\.?(?:{degrees}º|o\b)(?!\s?C)"), lambda m: ordinal(m[1], language)),
            (re.compile(r"(?<![\w.,])(\d{1,3})\.?(?:ª|a\b)"), lambda match: feminine(ordinal(match[1], language))),
        ]
    if language == "ru":
        endings = "|".join(sorted(RUSSIAN_ENDINGS, key=len, reverse=True))
        return [
            (re.compile(r"(?<![\w.,])[234]-х\b"), lambda match: str(num2words(int(match[0][0]), lang="ru", case="g"))),
            (re.compile(r"(?<![\w.,])(\d*[1-9]0)-е\b"), lambda match: ordinal(match[1], "ru", plural=True)),
            (
                re.compile(rf"(?<![\w.,])(\d{{1,4}})-(?:{endings})\b"),
                lambda match: ordinal(match[1], "ru", **RUSSIAN_ENDINGS[match[0].split("-")[1]]),
            ),
        ]
    if language == "nl":
        return [(re.compile(r"(?<![\w.,])(\d{1,3})(?:e|de|ste)\b"), lambda match: ordinal(match[1], "nl"))]
    return []
