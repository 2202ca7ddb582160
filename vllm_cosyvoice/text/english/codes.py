"""Numbers that are read digit by digit: telephone numbers, cards, codes; and versions."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, in_groups, one_by_one, plural, year
from vllm_cosyvoice.text.english.patterns import ALONE, ENDED
from vllm_cosyvoice.text.rules import Rule

# Telephone numbers, cards and codes, digit by digit.
CODE_WORD = (
    r"(?:[Cc]odes?|PIN|[Pp]in|ZIP(?:\+4)?|[Zz]ip|[Pp]asscode|[Pp]assword|OTP|[Ee]xtension|[Ee]xt\.?|[Aa]ccount|CVV"
    r"|ending in)"
)
# What has a number as its name; without "number", a short one may also count: "order 500 chairs".
NUMBERED_THING = (
    r"[Oo]rder|[Ii]nvoice|[Tt]racking|[Rr]eference|[Cc]onfirmation|[Ss]erial|[Cc]ase|[Tt]icket|[Pp]olicy"
    r"|[Mm]ember(?:ship)?|[Ss]tudent|[Ee]mployee|[Bb]ooking|[Pp]assport|[Ll]icen[sc]e(?: plate)?|[Cc]ustomer|[Aa]ccount"
    r"|[Pp]hone|[Rr]outing"
)
STATE = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AT]"
    "|W[AIVY]"
)
STATE_NAME = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois"
    "|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri"
    "|Montana|Nebraska|Nevada|New Hampshire|New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma"
    "|Oregon|Pennsylvania|Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington"
    "|West Virginia|Wisconsin|Wyoming"
)
ZIP_CODE = r"\d{5}(?:-\d{4})?"
PLACE = (
    r"RTX|GTX|[Rr]oom|[Ff]lights?|[Ee]rror|[Rr]oute|[Hh]ighway|[Ii]nterstate|Boeing|[Ss]uite|[Aa]partment|[Uu]nit|[Cc]hannel|HTTP"
    r"|[Ss]tatus"
)


def _identifier(match: re.Match[str]) -> str:
    thing, joint, sign, code = match.groups()
    digits = sum(character.isdecimal() for character in code)
    if digits < 3 or (joint == " " and not sign and digits < 5 and "-" not in code and code.isdecimal()):
        return match[0]
    return f"{thing}{joint.replace('no.', 'number')}{'number ' if sign else ''}{in_groups(code, 'zero')}"


def _hundreds(digits: str) -> str:
    """The number of a room or a flight: "747" → "seven forty seven", "302" → "three oh two", "2490" → "… ninety"."""
    if len(digits) == 4:
        return year(digits)
    if digits[1:] == "00":
        return cardinal(digits)
    return f"{cardinal(digits[0])} {'oh ' if digits[1] == '0' else ''}{cardinal(digits[1:])}"


CODE_RULES: list[Rule] = [
    (re.compile(r"(?<![\d.,-])\d{1,3}(?: 000)+(?![\d,.]*\d)"), lambda match: match[0].replace(" ", "")),  # no code
    (
        re.compile(r"\b(ISBN(?:-1[03])?:?)\s*(\d[\d -]{7,}[\dX])(?!\w)"),
        lambda match: f"{match[1].split('-')[0].rstrip(':')} {in_groups(match[2], 'zero')}",
    ),
    (
        re.compile(
            rf"{ALONE}\d{{4}}(?:[ -]\d{{4}}){{3,}}(?:[ -]\d{{1,3}})?{ENDED}|{ALONE}\d{{4}} \d{{6}} \d{{5}}{ENDED}"
        ),
        lambda match: in_groups(match[0]),
    ),
    (
        re.compile(rf"(?<![\w.,:/-])(?:\(0\d{{1,4}}\)|0\d{{2,4}})(?:[ -]\d{{3,6}}){{1,3}}{ENDED}"),
        lambda match: in_groups(match[0]),
    ),
    (re.compile(rf"{ALONE}\d{{3}}-\d\d-\d{{4}}{ENDED}"), lambda match: in_groups(match[0])),
    (
        re.compile(
            rf"(?<![\w.,:/$€£¥^-])(?:(\+)?\d{{1,3}}[ .-]?)?(?:\(\d{{3}}\)[ ]?|\d{{3}}[ .-])\d{{3}}[ .-]\d{{4}}{ENDED}"
            rf"|(\+)\d{{1,3}}(?:[ .-]?\(?\d{{2,5}}\)?){{2,5}}{ENDED}"
        ),
        lambda match: ("plus " if match[1] or match[2] else "") + in_groups(match[0]),
    ),
    (
        re.compile(rf"{ALONE}(?!\d\d[05]0?-\d\d[05]0\b)[2-9]\d\d-\d{{4}}{ENDED}"),
        lambda match: in_groups(match[0]),
    ),
    (
        re.compile(r"\b((?:[Cc]all|[Dd]ial)(?:ed|ing)? )([2-9]11|999|112|988)\b(?![\d-])"),
        lambda match: match[1] + one_by_one(match[2]),
    ),
    (
        re.compile(rf"\b((?:[Cc]all|[Dd]ial|[Pp]hone|[Tt]ext)(?:ed|ing)? )(\d{{3}} \d{{4}}){ENDED}"),
        lambda match: match[1] + in_groups(match[2]),
    ),
    (
        re.compile(
            rf"\b({NUMBERED_THING})((?: (?:number|no\.|ID|code))(?: is)?:? | )(#?)([A-Z]*-?\d[\dA-Z]*(?:-\d+)*){ENDED}"
        ),
        lambda match: _identifier(match),
    ),
    (
        re.compile(
            rf"((?<=, )(?:[A-Z]{{2}}|{STATE_NAME}),? |\b(?:{STATE}),? |\b{CODE_WORD}(?: number)?(?: is)?:? )"
            rf"({ZIP_CODE}){ENDED}"
        ),
        lambda match: match[1] + in_groups(match[2], "zero"),
    ),
    # Letters with a number are a flight, a road or a model: "BA2490", "I-405", "RTX4090".
    (
        re.compile(
            rf"\b((?:{PLACE}) (?:[A-Z]{{1,2}}[ -]?)?|(?:I|US|SR)-|(?<![-\w])[A-Z]{{1,3}}-?)([1-9]\d{{2,3}}){ENDED}"
        ),
        lambda match: f"{match[1].rstrip(' -')} {_hundreds(match[2])}",
    ),
    (
        re.compile(rf"\b(7[0-8]7)-(\d{{1,3}}){ENDED}"),
        lambda match: f"{_hundreds(match[1])} {cardinal(match[2])}",
    ),  # Boeing
    # A long mixture of letters and digits.
    (
        re.compile(rf"{ALONE}(?=[A-Z]*\d)(?=\d*[A-Z])(?=(?:[A-Z]*\d){{4}})[A-Z\d]{{10,}}{ENDED}"),
        lambda m: one_by_one(m[0]),
    ),
    (re.compile(r"(?<![\w.,:])0([1-9])00(?= (?:hours|hrs)\b)"), lambda match: f"zero {cardinal(match[1])} hundred"),
    (re.compile(r"\b1-([89]00)-(?=[A-Z])"), lambda match: f"one {cardinal(match[1])} "),
    (
        re.compile(rf"\b[A-Z]{{2}}\d\d(?: [A-Z\d]{{4}}){{3,}}(?: [A-Z\d]{{1,4}})?{ENDED}"),
        lambda m: in_groups(m[0], "zero"),
    ),  # IBAN
    (re.compile(rf"\b(ISO \d+):((?:19|20)\d\d){ENDED}"), lambda match: f"{match[1]} {year(match[2])}"),
    (re.compile(rf"\b([Pp]ort )(\d{{4}}){ENDED}"), lambda match: match[1] + year(match[2])),
    (
        re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3}|localhost):(\d{2,5})(?!\w)"),
        lambda match: f"{match[1]} colon {year(match[2]) if len(match[2]) == 4 else cardinal(match[2])}",
    ),
    (re.compile(rf"(?<![\w.])(\d{{1,3}}(?:\.\d{{1,3}}){{3}})/(\d{{1,3}}){ENDED}"), r"\1 slash \2"),
    (re.compile(rf"{ALONE}\d(?:-\d){{2,}}{ENDED}"), lambda match: one_by_one(match[0].replace("-", ""))),
    (
        re.compile(rf"\b({CODE_WORD}(?: number)?(?: is)?:? )#?(\d{{3,}}(?:-\d{{3,}})*){ENDED}"),
        lambda match: match[1] + in_groups(match[2], "zero"),
    ),
    (re.compile(rf"{ALONE}(?:0\d+|\d{{10,}}){ENDED}"), lambda match: one_by_one(match[0])),
]


# Versions and other numbers with two or more dots; four parts are an address, which wetext reads.
LARGEST_IP_PART = 255
VERSION_RULES: list[Rule] = [
    (re.compile(r"\b([A-Za-z]{2,})-?(?=\d+\.\d+\b)"), r"\1 "),
    (re.compile(r"\b([A-Za-z]+) ?-?(\d+(?:\.\d+)?)-(?=\d+[BM]\b)"), r"\1 \2 "),  # Llama-3.1-8B
    (re.compile(r"(?<=\b[A-Z]-)(\d+)s\b"), lambda match: plural(cardinal(match[1]))),  # F-16s
    (re.compile(r"(?<![\w.])(\d+\.\d+)-(?=[a-z])"), r"\1 "),  # 1.0-beta
    (re.compile(r"(?<=[A-Za-z]{2})/(?=\d)"), " "),
    (
        re.compile(r"(?<![\w.])\d+(?:\.\d+){3}(?![\w]|\.\d)"),
        lambda match: _version(match[0]) if max(map(int, match[0].split("."))) > LARGEST_IP_PART else match[0],
    ),
    (
        re.compile(r"(?<![\w.])([vV]?)(\d+(?:\.\d+){2}|\d+(?:\.\d+){4,})(?![\w]|\.\d)"),
        lambda match: f"{match[1]} {_version(match[2])}".strip(),
    ),
    (re.compile(r"(?<![\w.])([vV])(\d+(?:\.\d+)?)(?![\w]|\.\d)"), lambda match: f"{match[1]} {_version(match[2])}"),
]


def _version(digits: str) -> str:
    return " point ".join(map(cardinal, digits.split(".")))
