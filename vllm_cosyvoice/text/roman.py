"""Roman numerals."""

import unicodedata

VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
NUMERAL = r"(?:X{0,3}(?:IX|IV|V?I{1,3}|V)|X{1,3})"  # 1 to 39
YEAR = r"M{1,2}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
MORE_LETTERS = rf"(?=[IVX]{{2}})(?!XX\b|XXX\b){NUMERAL}"  # of at least two letters, and no size of clothes


def value(numeral: str) -> str:
    """The digits of a Roman numeral, in letters or signs of its own: "XIV" → "14", "Ⅻ" → "12"."""
    values = [VALUES[letter] for letter in unicodedata.normalize("NFKC", numeral)]
    return str(sum(-one if one < following else one for one, following in zip(values, [*values[1:], 0], strict=True)))
