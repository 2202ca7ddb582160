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
    "mln": "million", "bn": "billion", "t": "trillion", "T": "trillion", "tn": "trillion",
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
CODES = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹"}
NAMES = {"CHF": "Swiss francs", "CNY": "yuan", "RMB": "yuan", "R$": "reais", "CAD": "Canadian dollars",
         "AUD": "Australian dollars"}  # fmt: skip
PER = {"mo": "month", "yr": "year", "hr": "hour", "kg": "kilogram", "lb": "pound"}
# Words after which "the $5" is no adjective: "the $5 he gave".
CLAUSE = (
    r"(?:thousand|million|billion|trillion|he|she|they|we|you|it|i|who|that|which|were|has|had|will|would|can|could"
    r"|goes|went|as|with|then|than)\b"
)
MONEY_RULES: list[Rule] = [
    (re.compile(rf"({SIGN})(?=\.\d)"), r"\g<1>0"),
    (re.compile(r"(?<=\d)(mn|mln|bn|tn)\b"), lambda match: " " + SCALES[match[1]]),
    (
        re.compile(r"(?<![\d,.])\d{1,2}(?:,\d\d)+,\d{3}(?!,?\d)"),
        lambda match: match[0].replace(",", ""),
    ),  # Indian: 1,00,000
    (re.compile(r"\bRs\.?\s?(?=\d)"), "₹"),
    (re.compile(rf"(?<!/)\b({one_of(CODES)})\s?(?=\d)"), lambda match: CODES[match[1]]),
    (
        re.compile(rf"(?<![\w.,$€£¥])({AMOUNT}{SCALE}?)\s?({one_of(CODES)})\b"),
        lambda match: f"{CODES[match[4]]}{match[1]}",
    ),
    (re.compile(rf"(?<!\w)({one_of(NAMES)})\s?({AMOUNT})(?![\d.,]*\d)"), lambda match: f"{match[2]} {NAMES[match[1]]}"),
    (re.compile(r"(?<=\d)\s?(CHF|CNY|RMB|CAD|AUD)\b"), lambda match: f" {NAMES[match[1]]}"),
    (
        re.compile(r"(?<=[€£])(\d{1,3}(?:\.\d{3})+),(\d\d)(?!\d)|(?<![\w.,])(\d{1,3}(?:\.\d{3})+),(\d\d)(?=\s?[€£])"),
        lambda match: f"{(match[1] or match[3]).replace('.', '')}.{match[2] or match[4]}",
    ),
    (re.compile(rf"({SIGN})({AMOUNT})\s?({one_of(SCALES)}){DASH}{SIGN}?({AMOUNT}\s?\3)\b"), r"\2 to \1\4"),
    (NAMED_SUM, lambda match: _sum(match[1], SIGNS[match[2]], None)),
    (re.compile(rf"\b(?:US|AU|CA|A|C|NZ|HK|S)(?={SIGN}\d)"), ""),
    (re.compile(r"(?<=\d),(?=\d\d?\s?[€£])|(?<=[€£]\d),(?=\d\d\b)"), "."),
    (re.compile(rf"({SIGN})({AMOUNT}){DASH}{SIGN}?({AMOUNT})(?![-/]\d)"), r"\2 to \1\3"),
    (
        re.compile(
            rf"(?P<article>\b(?:[Tt]he|[Tt]his|[Ii]ts|[Tt]heir|[Oo]ur) ){SUM}(?!\w)"
            rf"(?=[ -](?!{FUNCTION_WORD}|{CLAUSE})[a-z])-?"
        ),
        _money,
    ),
    (re.compile(rf"(?P<article>\b[Aa]n? ){SUM}(?!\w)(?=[ -](?!{FUNCTION_WORD})[a-z])-?"), _money),
    (re.compile(rf"(?P<minus>(?<!\w)[-−](?=\W))?{SUM}(?!\d)"), _money),
    (re.compile(rf"(?P<amount>{AMOUNT}){SCALE}?\s?(?P<sign>[€£₹₽₩])"), _money),
    (re.compile(r"(\d+)\s?¢"), lambda match: _coins(int(match[1]), "cent")),
    (
        re.compile(r"(?<=\w)\s?/\s?(month|mo|year|yr|week|day|hour|hr|night|person|user|unit|kg|lb|mile)\b"),
        lambda match: f" per {PER.get(match[1], match[1])}",
    ),
]
