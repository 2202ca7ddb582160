"""Roman numerals in English text: Henry VIII, World War II, Chapter IV."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, ordinal
from vllm_cosyvoice.text.rules import Rule

VALUES = {"I": 1, "V": 5, "X": 10}
RULERS = (
    "Henry|Louis|Edward|George|James|Charles|Elizabeth|Mary|Richard|William|Philip|Philippe|John|Paul|Benedict|Pius"
    "|Leo|Gregory|Innocent|Clement|Urban|Boniface|Napoleon|Nicholas|Alexander|Peter|Catherine|Frederick|Friedrich"
    "|Ferdinand|Ivan|Otto|Ramses|Ramesses|Ptolemy|Xerxes|Darius|Cyrus|Mehmed|Selim|Suleiman|Murad|Harald|Olaf|Gustav"
    "|Gustavus|Christian|Carl|Karl|Wilhelm|Franz|Francis|Leopold|Alfonso|Haakon|Margaret|Joseph|Robert|David|Sixtus"
    "|Julius|Celestine|Victoria|Anne|Albert|Baudouin|Umberto|Victor|Emmanuel|Pedro|Juan|Felipe|Carlos|Rama|Thutmose"
)
# Words that a single-letter numeral may also follow; only after these, "I" is not a pronoun.
NUMBERED = (
    "Chapter|Part|Act|Volume|Book|Phase|Type|Level|Section|Article|Stage|Class|Appendix|Figure|Table|Title|Grade|War"
    "|Episode|Season|Unit|Step|Round|Division|Mark|Group|Category|Tier|Schedule|Annex|Canto|Scene"
)
NUMERAL = r"(?:X{0,3}(?:IX|IV|V?I{1,3}|V)|X{1,3})"
LONGER_NUMERAL = rf"(?=[IVX]{{2}})(?!XX\b|XXX\b){NUMERAL}"


def _value(numeral: str) -> str:
    values = [VALUES[letter] for letter in numeral]
    return str(sum(-one if one < following else one for one, following in zip(values, [*values[1:], 0], strict=True)))


# "I" after a name is a numeral only if what follows can't be the verb of a sentence with the subject "I".
AFTER_FIRST = r"(?=[,.;:!?')]|$|['’]s\b|\s(?:of|was|ruled|reigned|died|became|had)\b)"

ROMAN_RULES: list[Rule] = [
    (
        re.compile(rf"\b({RULERS}) (?:({LONGER_NUMERAL}|[VX])\b(?![.]\s?[A-Z]\.)|(I)\b{AFTER_FIRST})"),
        lambda match: f"{match[1]} the {ordinal(_value(match[2] or match[3]))}",
    ),
    (
        re.compile(rf"\b({NUMBERED}) ({NUMERAL})\b(?!['’](?:m|d|ll|ve))"),
        lambda match: f"{match[1]} {cardinal(_value(match[2]))}",
    ),
    (
        re.compile(rf"\b(?!(?:An?|The|And|Or|In|On|Of|With|By|No)\b)([A-Z][a-z]+) ({LONGER_NUMERAL})\b"),
        lambda match: f"{match[1]} {cardinal(_value(match[2]))}",
    ),
]
