"""English units of measurement: "5 kg", "a 5 km run", "6' 2\"", "45°"."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, number, ordinal
from vllm_cosyvoice.text.english.patterns import AMOUNT, FUNCTION_WORD, LENGTH_UNIT, one_of
from vllm_cosyvoice.text.rules import Rule
from vllm_cosyvoice.text.unit_signs import SUPERSCRIPTS

# Units that wetext confuses with others or does not know.
UNITS = {
    "m": "meter", "m²": "square meter", "m2": "square meter", "m³": "cubic meter", "m/s": "meters per second",
    "L": "liter", "l": "liter", "kWh": "kilowatt hour", "kW": "kilowatt", "W": "watt", "V": "volt",
    "mAh": "milliamp hour", "mmHg": "millimeters of mercury", "mmol/L": "millimoles per liter",
    "mg/dL": "milligrams per deciliter", "fps": "frames per second", "dB": "decibel", "Mbps": "megabits per second",
    "Gbps": "gigabits per second", "kcal": "kilocalorie", "µg": "microgram", "μg": "microgram", "mins": "minute",
    "secs": "second", "hrs": "hour", "tbsp": "tablespoon", "tsp": "teaspoon", "px": "pixel",
    "Kbps": "kilobits per second",
    "kbps": "kilobits per second", "GB/s": "gigabytes per second", "MB/s": "megabytes per second",
    "m/s²": "meters per second squared", "m/s2": "meters per second squared", "kg/m²": "kilograms per square meter",
    "sq ft": "square foot", "sq. ft": "square foot", "sq. ft.": "square foot", "ft²": "square foot",
    "sq m": "square meter", "sq. m": "square meter", "sq mi": "square mile", "yd": "yard", "gal": "gallon",
    "ppm": "parts per million", "ms": "millisecond", "MP": "megapixel",
    "cup": "cup", "tsps": "teaspoon", "tbsps": "tablespoon",
    "Tbsp": "tablespoon", "Tsp": "teaspoon", "Tbsps": "tablespoon", "qt": "quart", "qts": "quart", "pkg": "package",
    "pkgs": "package", "fl oz": "fluid ounce", "fl. oz": "fluid ounce", "fl. oz.": "fluid ounce", "pts": "point",
    "cu m": "cubic meter", "cu. m": "cubic meter", "cubic m": "cubic meter", "cm³": "cubic centimeter",
    "cm²": "square centimeter", "in²": "square inch", "yd²": "square yard", "mi²": "square mile",
    "km²": "square kilometer", "mm²": "square millimeter", "ft³": "cubic foot", "cu ft": "cubic foot",
    "cu. ft": "cubic foot", "cu. ft.": "cubic foot", "cu in": "cubic inch", "cu. in": "cubic inch",
    "cu. in.": "cubic inch", "cu yd": "cubic yard", "cu. yd": "cubic yard", "cu. yd.": "cubic yard",
    "sq in": "square inch", "sq. in": "square inch", "sq. in.": "square inch", "sq km": "square kilometer",
    "sq. km": "square kilometer", "sq yd": "square yard", "sq. yd": "square yard", "sq. mi": "square mile",
    "mi/h": "miles per hour", "mpg": "miles per gallon", "bpm": "beats per minute", "psi": "pounds per square inch",
    "Gbit/s": "gigabits per second", "Mbit/s": "megabits per second", "kbit/s": "kilobits per second",
    "kg/m³": "kilograms per cubic meter", "g/cm³": "grams per cubic centimeter", "N·m": "newton meter",
    "Nm": "newton meter", "mL": "milliliter", "dL": "deciliter", "cL": "centiliter", "cl": "centiliter",
    "mcg": "microgram", "IU": "international unit", "kPa": "kilopascal", "hPa": "hectopascal", "MPa": "megapascal",
    "Pa": "pascal", "kJ": "kilojoule", "MJ": "megajoule", "kN": "kilonewton", "eV": "electronvolt",
    "keV": "kiloelectronvolt", "MeV": "megaelectronvolt", "GeV": "gigaelectronvolt", "mA": "milliamp", "Ah": "amp hour",
    "Wh": "watt hour", "MWh": "megawatt hour", "GWh": "gigawatt hour", "MW": "megawatt", "GW": "gigawatt",
    "mV": "millivolt", "kV": "kilovolt", "mW": "milliwatt", "Ω": "ohm", "kΩ": "kiloohm", "MΩ": "megaohm",
    "nm": "nanometer", "µm": "micrometer", "μm": "micrometer", "µs": "microsecond", "μs": "microsecond",
    "ns": "nanosecond", "ha": "hectare", "hr": "hour", "sec": "second", "THz": "terahertz", "mmol": "millimole",
    "hp": "horsepower", "doz": "dozen", "yr": "year", "yrs": "year", "wk": "week", "wks": "week", "mos": "month",
}  # fmt: skip
# wetext reads these, too, but not in the singular before a noun: "a 5 km run".
AHEAD_OF_NOUN = UNITS | {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "kg": "kilogram", "g": "gram", "ft": "foot",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "ml": "milliliter", "mg": "milligram", "GB": "gigabyte",
    "MB": "megabyte", "TB": "terabyte", "min": "minute", "h": "hour", "mi": "mile",
}  # fmt: skip
MANY = {"foot": "feet", "inch": "inches", "dozen": "dozen", "horsepower": "horsepower"}  # plurals without "s"
PER = AHEAD_OF_NOUN | {"day": "day", "week": "week", "dose": "dose"}  # what follows a slash


def _measure(match: re.Match[str]) -> str:
    return _amount(match[1], UNITS[match[2]])


def _amount(amount: str, name: str) -> str:
    """An amount in the singular or the plural: "2", "square foot" → "two square feet"."""
    return f"{number(amount)} {name if amount == '1' else _plural(name)}"


def _plural(name: str) -> str:
    if " per " in name or " of " in name:
        return name
    *before, last = name.split(" ")
    return " ".join([*before, MANY.get(last, last + "s")])


def _inches(amount: str) -> str:
    return _amount(amount, "inch")


def _inches_sign(match: re.Match[str]) -> str:
    """The sign of inches after a number, where it closes no quotation: 65" → "65 inches"; a quotation stays."""
    if match["amount"] is None:
        return match[0]
    amount = match["amount"]
    spoken = amount if "/" in amount else number(amount)
    one = "/" in amount and " " not in amount
    if match["by"]:
        return f"{spoken} {'inch' if one or amount == '1' else 'inches'} by "
    return f"{spoken} inch" if one or amount == "1" or match["noun"] is not None else f"{spoken} inches"


def _coordinate(match: re.Match[str]) -> str:
    """Degrees, minutes and maybe seconds of a place: 40°42'46"N."""
    degrees, minutes, seconds, direction = match.groups()
    angle = f"{_amount(degrees, 'degree')} {_amount(minutes, 'minute')}"
    return f"{angle}{' ' + _amount(seconds, 'second') if seconds else ''} {DIRECTIONS[direction]}"


def _subsections(match: re.Match[str]) -> str:
    """The parts of a law after its number: "5(1)(a)" → "5 1 a"."""
    return match[0].replace(")(", " ").replace("(", " ").rstrip(")")


CONTAINER = (
    r"(?:bags?|bottles?|box(?:es)?|cans?|cartons?|containers?|jars?|jugs?|packs?|packages?|packets?|pouch(?:es)?|tanks?|tins?"
    r"|tubs?|tubes?|freezer|fridge)\b"
)
DIMENSION = "wide|long|tall|deep|high|thick"
DIRECTIONS = {"N": "north", "S": "south", "E": "east", "W": "west"}
QUOTED_OR_INCHES = (
    r"(?<!\d)[\"“][^\"”]*[\"”]?"
    rf"|(?:(?<![\w.,/-])|(?<=[\"”″]x))(?P<amount>\d+ \d/\d+|\d/\d+|{AMOUNT})\s?[\"”″]"
    rf"(?:(?P<by>\s?[x×]\s?(?=\d))|(?P<noun>(?=[ -](?!{FUNCTION_WORD}|{DIMENSION}|[WHDL]\b)[A-Za-z])))?"
)
UNIT_RULES: list[Rule] = [
    (re.compile(rf"(?<![\w.,])({AMOUNT}) ?in\.(?= of\b)"), lambda match: _inches(match[1])),
    (re.compile(r"(?<=\d)\s?c\.(?= [a-z])"), " cup"),
    (re.compile(r"(?<=\d)-(?=(?:mph|kph|km/h|rpm|hp)\b)"), " "),
    (re.compile(r"(?<=\d)(\s?(?:hrs?|ft|lbs?))\.(?=\s+\d+\s?(?:min|in|oz)\b)"), r"\1"),
    (re.compile(r"(?<=\d)(\s?(?:[kcm]?m|ft|in|yd|mi))\^?([23])(?!\w)"), lambda m: m[1] + m[2].translate(SUPERSCRIPTS)),
    (re.compile(rf"(?<=\d)\s?[x×]\s?(?=[\d./]+(?: \d/\d+)?\s?(?:[\"”″]|{LENGTH_UNIT}))"), " by "),
    (re.compile(rf"(\bby {AMOUNT}) ?in\b"), r"\1 inches"),
    (re.compile(r"(?<=\d)((?:\((?:\d{1,2}|(?!s\))[a-z]{1,3})\))+)"), _subsections),
    (
        re.compile(
            r"(?<=\d)\s?(oz|lbs?|ft|hrs?|mins?|secs?|yds?|gal|[Tt]bsps?|[Tt]sps?|qts?|pkgs?|pts?|doz|[ckm]m|kg|m[gl]|mi|in)\.(?=\s+[a-z]|[,;)])"
        ),
        r" \1",
    ),
    (
        re.compile(r"(?<![\w.,])(\d+)\s?(?:ft|feet|foot)\.?\s?(\d+)\s?in\b\.?"),
        lambda match: f"{_amount(match[1], 'foot')} {_inches(match[2])}",
    ),
    (
        re.compile(rf"(?<![\w.,])({AMOUNT})\s?in(?=\s(?:{DIMENSION}|by|x)\b)"),
        lambda match: _inches(match[1]),
    ),
    (re.compile(r"(?<![\w.,])(\d+)(?:st|nd|rd|th)-(?=[a-z])"), lambda match: ordinal(match[1]) + "-"),
    (
        re.compile(r"(?<![\w.,])(\d)['’′] ?(\d{1,2})(?:[\"”″]|''|’’)"),
        lambda match: f"{number(match[1])} foot {number(match[2])}",
    ),
    (re.compile(r"(?<![\w.,])(\d+)['’′] ?[x×] ?(\d+)['’′](?!\w)"), r"\1 foot by \2 foot"),
    (re.compile(rf"(?<![\w.,])(\d+)['’′](?= (?:{DIMENSION})\b)"), lambda match: _amount(match[1], "foot")),
    (
        re.compile(r"(?<![\w.,])(\d+)°\s?(\d+)['’′]\s?(?:(\d+(?:\.\d+)?)[\"”″]\s?)?([NSEW])\b"),
        _coordinate,
    ),
    (re.compile(r"(?<=\d)°\s?([NSEW])\b"), lambda match: f" degrees {DIRECTIONS[match[1]]}"),
    (re.compile(QUOTED_OR_INCHES), _inches_sign),
    (re.compile(rf"(\b(?:[Aa]n?|[Tt]he) {AMOUNT})°(?= (?!{FUNCTION_WORD})[a-z])"), r"\1 degree"),
    (re.compile(r"\b401\(?k\b\)?"), "four oh one k"),
    (
        re.compile(rf"(?<![\w.,/])({AMOUNT})[ -]?({one_of(AHEAD_OF_NOUN)})\.?(\)?) (?={CONTAINER})"),
        lambda match: f"{number(match[1])} {AHEAD_OF_NOUN[match[2]]}{match[3]} ",
    ),
    (
        re.compile(
            rf"(\b(?:[Aa]n?|[Tt]he) )({AMOUNT})[ -]?({one_of(AHEAD_OF_NOUN)})"
            rf"(?=[ -](?!{FUNCTION_WORD}|that\b|which\b)[a-z])"
        ),
        lambda match: f"{match[1]}{number(match[2])} {AHEAD_OF_NOUN[match[3]]}",
    ),
    (
        re.compile(
            rf"(?<![\w.,/-])({AMOUNT})-({one_of(name for name in AHEAD_OF_NOUN if len(name) > 1)}|in(?= ))(?=[ -][a-z])"
        ),
        lambda match: f"{number(match[1])} {AHEAD_OF_NOUN.get(match[2], 'inch')}",
    ),
    (
        re.compile(rf"(?<![\w.,/])({AMOUNT})\s?({one_of(AHEAD_OF_NOUN)})/({one_of(PER)})(?![\w/²³'’-])"),
        lambda match: f"{_amount(match[1], AHEAD_OF_NOUN[match[2]])} per {PER[match[3]]}",
    ),
    (
        re.compile(rf"(\d )?(?<![\w.,/])(\d{{1,2}}/\d{{1,2}}) ?({one_of(UNITS)})(?![\w/²³'’-])"),
        lambda match: f"{match[1] or ''}{match[2]} {UNITS[match[3]]}{'s' if match[1] else ''}",
    ),
    (re.compile(rf"(?<![\w.,/^])({AMOUNT})\s?({one_of(UNITS)})(?![\w/²³'’-]| ha\b)"), _measure),
    (
        re.compile(rf"(?<![\w.,])(1,\d{{3}}(?:\.\d+)?)\s?({one_of(AHEAD_OF_NOUN)})(?![\w/²³'’-])"),
        lambda match: _amount(match[1], AHEAD_OF_NOUN[match[2]]),
    ),
    (
        re.compile(rf"(\^-?\d+) ?({one_of(UNITS)})(?![\w/²³'’-])"),
        lambda match: f"{match[1]} {_plural(UNITS[match[2]])}",
    ),
    (re.compile(r"(?<![\w.,])(\d+)k (?=run|race|walk)"), lambda match: f"{cardinal(match[1])} k "),
    (re.compile(rf"(?<![\w.,])({AMOUNT})M(?![\w-])"), lambda match: f"{number(match[1])} million"),
    (
        re.compile(rf"(?<![\w.,])({AMOUNT})(?:k|(?<!\w-)(?<=\d\d)K)(?![\w-])"),
        lambda match: f"{number(match[1])} thousand",
    ),
]
