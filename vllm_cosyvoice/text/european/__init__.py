"""Reads German, French, Spanish, Italian, Portuguese, Russian and Dutch text.

Rules turn dates, times, money, units, ranges and abbreviations into words; the numbers that are left are spelled by
`spelled_numbers`.
"""

import re
from functools import cache

from vllm_cosyvoice.text import spelled_numbers
from vllm_cosyvoice.text.european.agreement import agree, counted, gender_of, spell
from vllm_cosyvoice.text.european.dates import date_rules, day_rules, time_rules
from vllm_cosyvoice.text.european.languages import WORDS
from vllm_cosyvoice.text.european.languages.words import Words
from vllm_cosyvoice.text.european.ordinals import ordinal_rules
from vllm_cosyvoice.text.european.roman import roman_rules
from vllm_cosyvoice.text.file_names import EXTENSION
from vllm_cosyvoice.text.fractions import spell_out_fractions
from vllm_cosyvoice.text.rules import Rule, Rules
from vllm_cosyvoice.text.spelled_numbers import spell_number
from vllm_cosyvoice.text.unit_signs import SUPERSCRIPTS

LANGUAGES = tuple(WORDS)
GROUPED = r"\d{1,3}(?:[. ]\d{3})+(?!\d)"
AMOUNT = rf"(?:{GROUPED}|\d+)(?:,\d+)?"
LETTER = r"[^\W\d_]"
MARKS = str.maketrans({"−": "-", "：": ":"})
RAISED = re.compile(r"(?<=\d)(\s?(?:[kcm]?m|к?м|см))([23])(?!\w)")  # m2
# Abbreviations that may end a sentence.
LAST_WORDS = ("usw.", "etc.", "ecc.", "т.д.", "т. д.", "т.п.", "т. п.", "др.", "enz.", "u. v. m.", "u.v.m.")


def read(line: str, language: str) -> str:
    """Convert one line of text to the words to speak in `language`, one of `LANGUAGES`."""
    line = spell_out_fractions(line.translate(MARKS))
    line = RAISED.sub(lambda match: match[1] + match[2].translate(SUPERSCRIPTS), line)
    line = _rules(language).apply(line)
    return spelled_numbers.read(line, language)


@cache
def _rules(language: str) -> Rules:
    words = WORDS[language]
    return Rules(
        _address_rules(words),
        day_rules(language),
        date_rules(language),
        time_rules(language),
        _code_rules(language),
        roman_rules(language),
        ordinal_rules(language),
        _money_rules(language),
        _range_rules(language),
        _unit_rules(language),
        _abbreviation_rules(words),
        _sign_rules(words),
        _noun_rules(language),
        [(re.compile(rf"(?<=\d)(?!er[ns]?\b)(?={LETTER})|(?<={LETTER})(?=\d)"), " ")],
    )


def _address_rules(words: Words) -> list[Rule]:
    def spoken(address: re.Match[str]) -> str:
        plain = re.sub(r"^https?://", "", address[0])
        return re.sub(r"[^\w\s-]|_", " ", plain.replace("@", f" {words.at} ").replace(".", f" {words.point} "))

    name = rf"(?<![\w.@/-])[\w-]+\.{EXTENSION}(?![\w@]|\.\w)"
    mail = r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    return [(re.compile(rf"{mail}|(?:https?://|\bwww\.)[^\s\"“”<>()]*[^\W_]|{name}"), spoken)]


def _code_rules(language: str) -> list[Rule]:
    def digits(text: str) -> str:
        return ", ".join(
            " ".join(spell_number(digit, language) for digit in group) for group in re.findall(r"\d+", text)
        )

    def postal(code: str) -> str:
        return digits(code) if language in ("de", "es", "it") else code

    plus = WORDS[language].signs["+"]
    point = WORDS[language].point
    spanish = r"|(?<![\w.,])(?:[6-9]\d\d \d{3} \d{3}|9\d \d{3} \d\d \d\d)(?! ?\d)" if language == "es" else ""
    return [
        (re.compile(r"\b([A-Z]{2})(\d\d(?: \d{4}){3,}(?: \d{1,4})?)\b"), lambda m: f"{m[1]} {digits(m[2])}"),  # IBAN
        (re.compile(r"(?<!\w)\+(\d[\d ()/-]{5,}\d)(?!\w)"), lambda match: f"{plus} {digits(match[1])}"),
        (re.compile(r"(?<![\w.,])\(?0\d{1,4}\)?[ /-]\d{4,}(?:[ -]\d{2,})*(?![\w.,]*\d)"), lambda m: digits(m[0])),
        (re.compile(r"(?<![\w.,])\(\d{2,3}\) ?\d{3,5}-\d{4}\b"), lambda match: digits(match[0])),
        (
            re.compile(r"(?<![\w.,])8 ?\(\d{3}\) ?\d{3}-\d\d-\d\d\b|(?<![\w.,])(?:\d{2,3}-){3}\d{2,4}\b" + spanish),
            lambda match: digits(match[0]),
        ),
        (re.compile(r"(?<![\w.,])\(?0\d{1,4}\)?(?: \d{3,4}){2}(?![\w.,]*\d)"), lambda match: digits(match[0])),
        (re.compile(r"(?<![\w.,/-])0\d(?: \d\d){4}(?![\w.,]*\d)"), lambda match: match[0].replace(" ", ", ")),  # French
        (
            re.compile(r"(?<![\w.,/-])(?:\d{3}\.\d{3}\.\d{3}-\d\d|\d\d\.\d{3}\.\d{3}/\d{4}-\d\d)(?![\w-])"),
            lambda match: digits(match[0]),  # of Brazilian people and companies
        ),
        (re.compile(r"(?:(?<=\bD-)|(?<=\d, )|(?<=\d[a-z], ))(\d{5})(?= [A-ZÄÖÜ][a-zäöüß])"), lambda m: postal(m[1])),
        (re.compile(r"(\b(?:PLZ|Postleitzahl|PIN|CAP|CEP|C\. ?P\.) )(\d[\d-]+)\b"), lambda m: m[1] + digits(m[2])),
        (
            re.compile(r"(?<![\w.,])(\d+(?:\.\d+){2,})(?![\w.]*\d)"),
            lambda match: match[0] if re.fullmatch(r"\d{1,3}(?:\.\d{3})+", match[0])
            else f" {point} ".join(match[0].split(".")),
        ),
        (
            re.compile(r"(?<![\w.,])(\d{1,3}\.\d{1,2}|\d+\.\d{4,})(?![\w.,]*\d)"),
            lambda match: match[0].replace(".", f" {point} "),
        ),
    ]  # fmt: skip


def _money_rules(language: str) -> list[Rule]:
    words = WORDS[language]
    signs = "|".join(re.escape(sign) for sign in sorted(words.money, key=len, reverse=True))
    ahead = "|".join(re.escape(sign) for sign in sorted(words.money, key=len, reverse=True) if not sign[0].islower())

    def spoken(amount: str, sign: str) -> str:
        whole, _, coins = amount.partition(",")
        if len(coins) != 2:
            return counted(amount, words.money[sign], language)
        if whole == "0" and int(coins):
            kopecks = language == "ru" and sign not in "€$£"
            return (
                f"{spell(str(int(coins)), language, 'f')} {_kopecks(coins)}"
                if kopecks
                else counted(coins.lstrip("0"), words.cent, language)
            )
        spoken = counted(whole, words.money[sign], language)
        if not int(coins):
            return spoken
        joint = f"{words.coins} " if words.coins else ""
        tail = f" {_kopecks(coins)}" if language == "ru" and sign not in "€$£" else ""
        return f"{spoken} {joint}{spell(str(int(coins)), language, 'f' if tail else 'm')}{tail}"

    many = "de " if language in ("es", "pt") else "di " if language == "it" else "d'" if language == "fr" else ""
    scale = r"(?:mil[hl][^\W\d_]+|bil[hl][^\W\d_]+|mld|Mi[ol]\.?|Milliarden?|Million(?:en)?|Mrd\.?|млн|млрд|тыс)\b\.?"
    return [
        (re.compile(r"(?<=\d),[-–—]{1,2}(?=[\s.,;!?]|€|$)"), ""),  # 5,- €
        (re.compile(rf"(?<=\d)(\s?(?:{signs}))\s?/\s?(?={LETTER}{{3}})"), rf"\1 {words.signs['/']} "),  # 5 €/Monat
        (re.compile(r"(?<=[$])\s?\d{1,3}(?:,\d{3})+"), lambda match: match[0].replace(",", "")),
        (
            re.compile(rf"(?<!\w)({ahead})\s?({AMOUNT} {scale})|({AMOUNT} {scale})\s?([€$£])"),
            lambda match: f"{match[2] or match[3]} {many}{words.money[match[1] or match[4]].many}",
        ),
        (
            re.compile(rf"(?<!\w)({ahead})\s?({AMOUNT}|\d+\.\d\d)(?![\d]|[.,]\d)"),
            lambda match: spoken(re.sub(r"\.(?=\d\d$)", ",", match[2]), match[1]),
        ),
        (
            re.compile(rf"(?<![\w.,])({AMOUNT})\s?({signs})(?!\w)(?<!\.)\.?(?<=[.\w$€£¥₽])"),
            lambda match: spoken(match[1], match[2])
            + ("." if match[0].endswith(".") and match.end() == len(match.string) else ""),
        ),
    ]  # fmt: skip


def _kopecks(coins: str) -> str:
    value = int(coins)
    if value % 10 == 1 and value != 11:
        return "копейка"
    return "копейки" if value % 10 in (2, 3, 4) and value // 10 != 1 else "копеек"


def _range_rules(language: str) -> list[Rule]:
    words = WORDS[language]
    units = "|".join(re.escape(sign) for sign in sorted({**words.units, **words.money}, key=len, reverse=True))

    def fraction(match: re.Match[str]) -> str:
        above, below = int(match[1]), int(match[2])
        names = words.fractions.get(below)
        if (above, below) == (1, 2) and match[3]:
            return words.half[gender_of(match[3], 1, language) == "f"] + match[3]
        if below in (5, 10) and match[3] is None and above > 1:
            return f"{match[1]} {words.out_of} {match[2]}"
        if names is None or above >= below:
            return f"{match[1]} {match[2]}"
        feminine = "f" if language == "ru" else "m"
        return f"{spell(match[1], language, feminine) if above == 1 else match[1]} {names[above > 1]}{match[3] or ''}"

    between = "[–—~-]"
    return [
        (re.compile(rf"(?<=\d)(\s?(?:{units}))\s?/\s?(?={LETTER}{{3}})"), rf"\1 {words.signs['/']} "),  # 5 g/Tag
        (
            re.compile(rf"(?<![\w.,/])((?:\d+ )?[1-9]/[2-9])\s?({'|'.join(map(re.escape, words.units))})(?![\w²³/])"),
            lambda match: f"{match[1]} {words.units[match[2]].many if ' ' in match[1] else words.units[match[2]].one}",
        ),
        (
            re.compile(rf"(?<![\w.,:/-])({AMOUNT})(?:\s?({units}))?\s?{between}\s?({AMOUNT})(?!\w*[-–/:]\d|\d)"),
            lambda match: f"{match[1]}{match[2] or ''} {_joint(match, words)} {match[3]}",
        ),
        (re.compile(r"(?<![\w.,:/-])(\d{1,3}):(\d{1,3})(?![\d:])"), rf"\1 {words.score} \2"),
        (re.compile(r"(?<![\w.,/-])(\d{1,3}) 1/2(?![\w/.,]*\d)"), lambda match: _and_a_half(match[1], language)),
        (re.compile(r"(?<![\w.,/-])(\d{1,3}) (?=[1-9]/[2-9](?![\w/.,]*\d))"), rf"\1 {words.signs['&']} "),
        (re.compile(r"(?<![\w.,/])(\d{1,3})/(\d{1,3})(?![\w/.,]*\d)( [^\W\d_]+)?"), fraction),
    ]


def _and_a_half(digits: str, language: str) -> str:
    """A number and a half: "anderthalb", "dos y medio", "полтора"."""
    words = WORDS[language]
    if digits == "1" and words.one_and_a_half:
        return words.one_and_a_half
    return words.and_a_half.format(spell_number(digits, language))


def _joint(match: re.Match[str], words: Words) -> str:
    first, second = (float(re.sub(r"[.\s]", "", match[group]).replace(",", ".")) for group in (1, 3))
    return words.to if first < second else words.score


def _unit_rules(language: str) -> list[Rule]:
    words = WORDS[language]
    units = "|".join(re.escape(sign) for sign in sorted(words.units, key=len, reverse=True))
    rules: list[Rule] = [
        (re.compile(rf"(?<![\w,.])[-](?={AMOUNT})"), words.signs["-"] + " "),
        (
            re.compile(rf"(?<![\w.,/-])({AMOUNT})\s?({units})(?![\w²³/])"),
            lambda match: counted(match[1], words.units[match[2]], language),
        ),
        (
            re.compile(rf"(?<![\w.,/-])({AMOUNT})\s?({units})/({units})(?![\w²³/])"),
            lambda match: (
                f"{counted(match[1], words.units[match[2]], language)} {words.signs['/']} {words.units[match[3]].one}"
            ),
        ),
        (
            re.compile(rf"(?<={LETTER})\s?/\s?({units})(?!\w)"),
            lambda match: f" {words.signs['/']} {words.units[match[1]].one}",
        ),
    ]
    if language == "de":
        rules.append((re.compile(r"(?<=\d)\s?%-?ig"), " prozentig"))
    if language == "fr":  # open 24 hours out of 24, 7 days out of 7
        rules.insert(0, (re.compile(r"\b24 ?h ?(?:/|sur) ?24\b"), "24 heures sur 24"))
        rules.insert(0, (re.compile(r"\b7 ?j ?(?:/|sur) ?7\b"), "7 jours sur 7"))
    return rules


def _abbreviation_rules(words: Words) -> list[Rule]:
    spellings = {
        short[0].upper() + short[1:]: full[0].upper() + full[1:] for short, full in words.abbreviations.items()
    }
    spellings |= words.abbreviations
    written = "|".join(re.escape(short) for short in sorted(spellings, key=len, reverse=True))
    follows = rf"(?=\s|[\d,;:)…]|(?<!{LETTER})(?<!/){LETTER}|$)"
    # Words of one or two letters that may end a sentence are abbreviations only before a number or a name.
    short = re.compile(r"[A-ZА-Я]?[a-zа-я]{0,2}\.")

    def spoken(match: re.Match[str]) -> str:
        written = match[1]
        ends_line = match.end() == len(match.string)
        ends = ends_line or (written in LAST_WORDS and re.match(r"\s+[^\W\d_a-zà-ÿа-я]", match.string[match.end() :]))
        if ends_line and short.fullmatch(written) and written not in LAST_WORDS:
            return match[0]
        return spellings[written] + ("." if ends and written.endswith(".") else "") + _gap(match)

    rules: list[Rule] = [(re.compile(rf"(?<![\w.])({written}){follows}"), spoken)]
    if "Str." in words.abbreviations:  # also at the end of a word: "Hauptstr."
        rules.append((re.compile(r"(?<=[a-zäöüß])str\.(?=\s)|(?<=[a-zäöüß])str\.$"), "straße"))
    return rules


def _gap(match: re.Match[str]) -> str:
    """A space if a letter or a digit follows at once: "Nr.5", "N°5"."""
    return " " if not match[0].endswith("-") and re.match(r"\w", match.string[match.end() :]) else ""


def _sign_rules(words: Words) -> list[Rule]:
    signs = words.signs
    return [
        (re.compile(r"\s*(?:≥|>=)\s*"), f" {signs['≥']} "),
        (re.compile(r"\s*(?:≤|<=)\s*"), f" {signs['≤']} "),
        (re.compile(r"(?<![-=<>\w])\s*>\s?(?=\w)|(?<=[\w)])\s*>\s*(?=\w)"), f" {signs['>']} "),
        (re.compile(r"\s*<\s*(?=\w)"), f" {signs['<']} "),
        (re.compile(r"(?<=\()\s+"), ""),
        (re.compile(r"(?<=[\w)])(?:²|\^2(?!\d))"), f" {signs['²']}"),
        (re.compile(r"(?<=[\w)])(?:³|\^3(?!\d))"), f" {signs['³']}"),
        (re.compile(r"(?<=\w)\s*=\s*(?=\w)"), f" {signs['=']} "),
        (re.compile(r"(?<=\w)\s*\+\s*(?=\w)|(?<!\w)\+(?=\w)"), f" {signs['+']} "),
        (re.compile(r"(?<=\d)\s*[×*]\s*(?=\d)|(?<=\d)\s+x\s+(?=\d)"), f" {signs['×']} "),
        (re.compile(r"(?<=\d)\s?x(?!\w|\s?\d)"), f" {signs['x']}"),
        (re.compile(r"(?<=\w)\s+/\s+(?=\w)"), ", "),
        (re.compile(r"\s*÷\s*"), f" {signs['÷']} "),
        (re.compile(r"\s*±\s*"), f" {signs['±']} "),
        (re.compile(r"§§?\s*(?=\d)"), f"{signs['§']} "),
        (re.compile(r"№\s*(?=\d)"), f"{signs['№']} "),
        (re.compile(r"(?<=\d)\s?°(?!\w)"), f" {signs['°']}"),
        (re.compile(r"\s+&\s+"), f" {signs['&']} "),
        (re.compile(r"(?<=[A-ZА-Я])-(?=\d)"), " "),
        (re.compile(r"(?<!\w)['’](?=\d0\b)"), ""),
    ]


def _noun_rules(language: str) -> list[Rule]:
    """1 and 2 agree with the noun after them, where its ending tells the gender."""
    number = r"\d*[12]|[2-9]00" if language in ("es", "pt") else r"\d*[12]"
    noun = rf"\s+(?P<noun>{LETTER}[\w'’-]*)"
    before = r"(?<![\w.,:/+-])(?P<before>[^\W\d_]+\s+)?"
    return [
        (re.compile(rf"{before}(?P<number>{number}){noun}"), lambda match: agree(match, language)),
    ]
