"""Counts the syllables of a text, as a lower bound."""

import re
import unicodedata

IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3041-\u3096\u30a1-\u30fa"
HANGUL = "\uac00-\ud7a3"
ONE_EACH = re.compile(rf"[{IDEOGRAPHS}{KANA}{HANGUL}\d]")
WORDS = re.compile(r"[^\W\d_]+")
VOWELS = re.compile(r"[aeiouyæøœаеиоуыэюяєіαεηιουω]+")


def syllables(text: str) -> int:
    """Estimate the number of syllables in any language, rather too low than too high.

    Chinese characters, kana, hangul and digits count as one each. Other words have one per group of vowels, at least
    one; a final e counts as silent.
    """
    text = unicodedata.normalize("NFKC", text)
    return len(ONE_EACH.findall(text)) + sum(map(_of_word, WORDS.findall(ONE_EACH.sub(" ", text))))


def _of_word(word: str) -> int:
    letters = unicodedata.normalize("NFD", word.casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return max(1, len(VOWELS.findall(plain.removesuffix("e"))))
