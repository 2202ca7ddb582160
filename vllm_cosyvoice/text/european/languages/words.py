"""What the words of a European language consist of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counted:
    """The forms of a noun after a number, and its gender: "m", "f" or "n"."""

    gender: str
    one: str
    many: str
    few: str  # after 2, 3 and 4 in Russian; elsewhere as `many`


def nouns(table: str) -> dict[str, Counted]:
    """Read lines of "signs: gender, one, many, few"; without further forms, they are all the same.

    A "~" is a space within a sign.
    """
    forms_of = {}
    for line in table.strip().splitlines():
        signs, _, forms = line.strip().partition(": ")
        gender, one, *others = forms.split(", ")
        many = others[0] if others else one
        noun = Counted(gender, one, many, others[1] if len(others) > 1 else many)
        forms_of.update(dict.fromkeys((sign.replace("~", " ") for sign in signs.split()), noun))
    return forms_of


def pairs(table: str) -> dict[str, str]:
    """Read "written = spoken" pairs, separated by semicolons."""
    return dict(pair.strip().split(" = ") for pair in table.split(";"))


def listed(words: str) -> tuple[str, ...]:
    """Read words, separated by spaces."""
    return tuple(words.split())


@dataclass(frozen=True)
class Words:
    """What one language says for signs, units, money, fractions, months and abbreviations."""

    to: str  # between the ends of a range
    score: str  # between the numbers of a score or a ratio
    out_of: str
    signs: dict[str, str]
    point: str  # of a version
    at: str
    coins: str  # between an amount and its coins: "con" in "tres euros con cincuenta"
    cent: Counted  # amounts below one unit of money
    days: dict[str, str]  # short names of days
    and_a_half: str  # after a number, "{}"
    half: tuple[str, str]  # before a masculine and a feminine noun
    fractions: dict[int, tuple[str, str]]  # denominators: the forms after one and after other numbers
    units: dict[str, Counted]
    money: dict[str, Counted]
    abbreviations: dict[str, str]
    one_and_a_half: str = ""
    hour: Counted | None = None  # said between hours and minutes
    clock: str = ""  # said between hours and minutes otherwise
    months: tuple[str, ...] = ()
    month_joint: str = " "  # between day, month and year
    not_nouns: str = ""  # words after a number that it does not count


def denominators(*names: str) -> dict[int, tuple[str, str]]:
    """Names of 2, 3, 4 …, each "one/many"."""
    forms = (name.split("/") for name in names)
    return {place: (pair[0], pair[-1]) for place, pair in enumerate(forms, 2)}
