"""Spells English numbers with num2words, but in wetext's style: no hyphens, no commas."""

from num2words import num2words

LONGEST_NAMED = 36  # digits; longer numbers have names that nobody knows, so they are read digit by digit


def cardinal(digits: str, *, with_and: bool = False) -> str:
    """A whole number: "1,234" → "one thousand two hundred thirty four"."""
    digits = digits.replace(",", "")
    if len(digits) > LONGEST_NAMED:
        return one_by_one(digits)
    words = _words(digits, "cardinal")
    return words if with_and else words.replace(" and ", " ")


def number(digits: str) -> str:
    """Like `cardinal`, with a decimal part read digit by digit and an "and" before the last two digits."""
    whole, point, decimals = digits.partition(".")
    *groups, last = cardinal(whole, with_and=True).rsplit(" and ", 1)
    spoken = " and ".join([group.replace(" and ", " ") for group in groups] + [last])
    return f"{spoken} point {one_by_one(decimals)}" if point else spoken


def ordinal(digits: str) -> str:
    """An ordinal number: "8" → "eighth"."""
    digits = digits.replace(",", "")
    if len(digits) > LONGEST_NAMED:
        return f"{one_by_one(digits[:-1])} {ordinal(digits[-1])}"
    return _words(digits, "ordinal").replace(" and ", " ")


def year(digits: str) -> str:
    """A year of four digits: "1980" → "nineteen eighty"."""
    century, rest = digits[:2], digits[2:]
    if century.endswith("0") and rest[0] == "0":
        return cardinal(digits)
    if rest == "00":
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest[0] == '0' else ''}{cardinal(rest)}"


def plural(words: str) -> str:
    """`words` with the last one in the plural: "eighty" → "eighties"."""
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}es" if words.endswith("x") else f"{words}s"


def one_by_one(digits: str, zero: str = "zero") -> str:
    """Each digit separately; other characters are kept: "0042X" → "zero zero four two X"."""
    return " ".join((zero if digit == "0" else cardinal(digit)) if digit.isdecimal() else digit for digit in digits)


def in_groups(digits: str, zero: str = "oh") -> str:
    """Digits in the groups of the text: "555-0199" → "five five five, oh one nine nine"."""
    groups = "".join(character if character.isalnum() else " " for character in digits).split()
    return ", ".join(one_by_one(group, zero) for group in groups)


def _words(digits: str, form: str) -> str:
    return str(num2words(int(digits), lang="en", to=form)).replace("-", " ").replace(",", "")
