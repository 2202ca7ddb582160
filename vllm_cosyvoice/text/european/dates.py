"""Dates and times of day in European languages."""

import re
from collections.abc import Callable

from vllm_cosyvoice.text.european.agreement import spell
from vllm_cosyvoice.text.european.languages import WORDS
from vllm_cosyvoice.text.european.ordinals import german, ordinal
from vllm_cosyvoice.text.rules import Rule

DAY = r"(0?[1-9]|[12]\d|3[01])"
MONTH = r"(0?[1-9]|1[0-2])"
YEAR = r"((?:1\d|20)\d\d)"
RUSSIAN_TODAY = re.compile(r"\b(?:сегодня|завтра|вчера|это)\s+$", re.IGNORECASE)


def day_rules(language: str) -> list[Rule]:
    """Rules for short days, which are also words: in a range ("Mo-Fr"), beside another day, before a time."""
    words = WORDS[language]
    days = words.days | {day.capitalize(): name for day, name in words.days.items()}
    names = "|".join(days)
    day = rf"(?<![\w.-])({names})\.?"
    joint = rf"(?:,|\s?[/+&]|\s{words.signs['&']}\b)\s?"
    time = (
        r"\d{1,2}(?:[:.h]\d\d|\s?(?:h|Uhr)\b|\s?[–-]\s?\d{1,2}(?=\s?(?:h|Uhr|uur)\b|[,;.)]|\s*$)"
        rf"|\.\d{{1,2}}\.|\.?{words.month_joint}(?:{'|'.join(words.months)})\b)"
    )
    short = re.compile(rf"({names})\.?")

    def spoken(match: re.Match[str]) -> str:
        return short.sub(lambda name: days[name[1]], match[0].replace("/", ", "))

    return [
        (
            re.compile(rf"{day}(?:\s?[–-]\s?|\s(?:{words.to or '-'}|au)\s)({names})(?![\w-])\.?(?!\w)"),
            lambda match: f"{days[match[1]]} {words.to or '–'} {days[match[2]]}",
        ),
        (re.compile(rf"{day}(?:{joint}(?:{names})\b)+(?![\w-])"), spoken),
        (re.compile(rf"{day}(?=:?,?\s{time})"), spoken),
    ]


def date_rules(language: str) -> list[Rule]:
    """Rules for numeric dates, and for days before the name of a month."""
    spoken = _date(language)
    rules: list[Rule] = [
        (
            re.compile(rf"(?<![\w.,/-]){YEAR}([-/.]){MONTH}\2{DAY}(?![\w/-]|[.,]\d)"),
            lambda match: spoken(match[4], match[3], match[1], match),
        ),
        (
            re.compile(rf"(?<![\w,/-]){DAY}([-/.]){MONTH}\2{YEAR}(?![\w/-]|[.,]\d)"),
            lambda match: spoken(match[1], match[3], match[4], match),
        ),
    ]
    months = "|".join(WORDS[language].months)
    if language == "de":
        rules.append(
            (re.compile(rf"(?<![\w.,]){DAY}\.{MONTH}\.(?!\d)"), lambda match: spoken(match[1], match[2], "", match))
        )
    elif language == "it":
        rules.append((re.compile(rf"(?<![\w.,])1(?=\s(?:{months})\b)"), "primo"))
    elif language == "ru":
        rules += [
            (
                re.compile(rf"(?<![\w.,]){DAY}\s({months})(?:\s{YEAR}(?:\s?(?:года|г\.))?)?"),
                lambda match: spoken(match[1], str(WORDS["ru"].months.index(match[2]) + 1), match[3] or "", match),
            ),
            *_russian_years(),
        ]
    return rules


def _russian_years() -> list[Rule]:
    cases: dict[str, dict[str, object]] = {
        "году": {"case": "p"},
        "года": {"case": "g"},
        "год": {},
        "годом": {"case": "i"},
    }
    return [
        (
            re.compile(rf"(?<=\b[Вв] ){YEAR}\s?г\."),
            lambda match: f"{ordinal(match[1], 'ru', case='p')} году" + _stop(match),
        ),
        (re.compile(rf"(?<![\w.,-]){YEAR}\s?г\.(?=\s*$)"), lambda match: f"{ordinal(match[1], 'ru')} год."),
        (re.compile(rf"(?<![\w.,-]){YEAR}\s?г\."), lambda match: f"{ordinal(match[1], 'ru', case='g')} года"),
        (
            re.compile(rf"(?<![\w.,-]){YEAR}\s(году|года|годом|год)\b"),
            lambda match: f"{ordinal(match[1], 'ru', **cases[match[2]])} {match[2]}",
        ),
    ]  # fmt: skip


def _stop(match: re.Match[str]) -> str:
    """A dot at the end of a line also ends the sentence."""
    return "." if match.end() == len(match.string) else ""


def _date(language: str) -> Callable[[str, str, str, re.Match[str]], str]:
    words = WORDS[language]

    def spoken(day: str, month: str, year: str, match: re.Match[str]) -> str:
        before, name = match.string[: match.start()], words.months[int(month) - 1]
        if language == "de":
            return f"{german(day, before)} {german(month, before)} {year}".rstrip()
        if language == "ru":
            form: dict[str, object] = {"gender": "n"} if RUSSIAN_TODAY.search(before) else {"case": "g"}
            day = f"{ordinal(day, 'ru', **form)} {name}"
            return f"{day} {ordinal(year, 'ru', case='g')} года" if year else day
        first = (
            "premier" if language == "fr" else "primo" if language == "it" else "primeiro" if language == "pt" else "1"
        )
        return words.month_joint.join(filter(None, (first if int(day) == 1 else str(int(day)), name, year)))

    return spoken


def time_rules(language: str) -> list[Rule]:
    """Rules for times of day: "14:30", in German also "18.30 Uhr", in French and Portuguese "14h30"."""
    words = WORDS[language]
    name = rf"(?:\s?(?:{words.hour.one}|{words.hour.many})\b)?" if words.hour else ""
    time = r"([01]?\d|2[0-4])"

    def spoken(match: re.Match[str]) -> str:
        hours, minutes = match[1], int(match[2] or 0)
        noun = words.hour
        if language == "ru":
            shown = "ноль ноль" if not minutes else f"{'ноль ' if minutes < 10 else ''}{minutes}"
            return f"{int(hours)} {shown}"
        said = spell(hours, language, "f" if language in ("es", "it", "pt", "fr") else "m")
        if language == "nl" or (language == "de" and int(hours) != 1):
            said = str(int(hours))
        if noun and not (minutes and words.clock):
            said += f" {noun.one if int(hours) == 1 or (language == 'fr' and not int(hours)) else noun.many}"
        return f"{said} {words.clock} {minutes}".replace("  ", " ") if minutes else said

    span = re.compile(rf"(?<![\w:.,/])({time}(?::[0-5]\d(?![\d:])|\s?h(?:\s?[0-5]\d)?))\s?[–—-]\s?(?=\d{{1,2}}\s?[:h])")
    rules: list[Rule] = [(span, rf"\1 {words.to} ")] if words.to else []
    rules += [(re.compile(rf"(?<![\w:.,/]){time}:([0-5]\d)(?![\d:]|\s?(?:zu|à|Tore)\b){name}"), spoken)]
    if language in ("de", "nl"):
        rules.append((re.compile(rf"(?<![\w:.,/]){time}\.([0-5]\d)\s?(?:Uhr|uur)\b"), spoken))
    if language == "de":
        rules.append((re.compile(r"(?<![\w:.,/])(0?1)()\s?Uhr\b"), spoken))
    if language == "it":
        before = r"(?:(?<=\b[Oo]re )|(?<=\b[Aa]lle )|(?<=\b[Dd]alle ))"
        rules.append((re.compile(rf"{before}{time}\.([0-5]\d)(?!\d|[.,]\d)"), spoken))
    if language in ("es", "it"):
        rules.append((re.compile(rf"(?<![\w:.,/]){time}\s?h\s?([0-5]\d)(?![\w/])"), spoken))
    if language in ("fr", "pt"):
        rules.append((re.compile(rf"(?<![\w:.,/]){time}\s?h\s?([0-5]\d)?(?![\w/])"), spoken))
    return rules
