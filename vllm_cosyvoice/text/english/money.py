"""English money."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number
from vllm_cosyvoice.text.english.patterns import AMOUNT, DASH, FUNCTION_WORD, one_of
from vllm_cosyvoice.text.rules import Rule

# Money.
CURRENCIES = {
    "$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "pence"), "₹": ("rupee", "paise"),
    "¥": ("yen", ""), "￥": ("yen", ""), "₩": ("won", ""), "₽": ("rouble", "kopeck"),
}  # fmt: skip
SIGNS = {name: sign for sign, (name, _) in CURRENCIES.items()}
SIGN = f"[{''.join(CURRENCIES)}]"
SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million", "b": "billion", "B": "billion",
    "bn": "billion", "t": "trillion", "T": "trillion", "tn": "trillion",
}  # fmt: skip
SCALE = rf"(?:\s?(?P<scale>thousand|million|billion|trillion)\b|(?P<short>{one_of(SCALES)})\b)"


def _coins(amount: int, name: str) -> str:
    return f"{cardinal(str(amount))} {name if amount == 1 or not name.endswith('t') else name + 's'}"


def _sum(amount: str, sign: str, scale: str | None, *, one: bool = False) -> str:
    """An amount of money in words; `one` selects the singular, as before a noun."""
    name, coin = CURRENCIES[sign]
    many = name if one or name in ("yen", "won") else name + "s"
    if scale:
        return f"{number(amount)} {scale} {many}"
    whole, _, decimals = amount.partition(".")
    if len(decimals) != 2 or not coin:
        return f"{number(amount)} {name if float(amount.replace(',', '')) == 1 else many}"
    whole, coins = whole.replace(",", ""), int(decimals)
    if not int(whole):
        return _coins(coins, coin)
    spoken = f"{cardinal(whole)} {name if int(whole) == 1 else many}"
    # A long amount has an "and" before its cents, a short one does not.
    joint = " and " if len(whole) > 3 else " "
    return f"{spoken}{joint}{_coins(coins, coin)}" if coins else spoken


def _money(match: re.Match[str]) -> str:
    groups = match.groupdict()
    scale = groups["scale"] or (SCALES[groups["short"]] if groups["short"] else None)
    article = groups.get("article") or ""
    minus = "minus " if groups.get("minus") else ""
    return article + minus + _sum(match["amount"], match["sign"], scale, one=bool(article))


SUM = rf"(?P<sign>{SIGN})(?P<amount>{AMOUNT}){SCALE}?"
NAMED_SUM = re.compile(r"(\d[\d,]*\.\d\d) (dollar|euro|pound)s\b")
MONEY_RULES: list[Rule] = [
    (NAMED_SUM, lambda match: _sum(match[1], SIGNS[match[2]], None)),
    (re.compile(rf"\b(?:US|AU|CA|A|C|NZ|HK|S)(?={SIGN}\d)"), ""),
    (re.compile(r"(?<=\d),(?=\d\d\s?[€£])|(?<=[€£]\d),(?=\d\d\b)"), "."),
    (re.compile(rf"({SIGN})({AMOUNT}){DASH}{SIGN}?({AMOUNT})(?![-/]\d)"), r"\2 to \1\3"),
    (re.compile(rf"(?P<article>\b[Aa]n? ){SUM}(?!\w)(?=[ -](?!{FUNCTION_WORD})[a-z])-?"), _money),
    (re.compile(rf"(?P<minus>(?<!\w)[-−](?=\W))?{SUM}(?!\d)"), _money),
    (re.compile(rf"(?P<amount>{AMOUNT}){SCALE}?\s?(?P<sign>[€£₹₽₩])"), _money),
    (re.compile(r"(\d+)\s?¢"), lambda match: _coins(int(match[1]), "cent")),
    (re.compile(r"(?<=\w)\s?/\s?(month|mo|year|yr|week|day|hour|hr|night|person|user|unit|kg|lb|mile)\b"), r" per \1"),
]
