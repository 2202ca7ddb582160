"""Roman numerals in English text: Henry VIII, World War II, Chapter IV."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, ordinal, year
from vllm_cosyvoice.text.roman import MORE_LETTERS, NUMERAL, YEAR, value
from vllm_cosyvoice.text.rules import Rule

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
# "I" after a name is a numeral only if what follows can't be the verb of a sentence with the subject "I".
AFTER_FIRST = r"(?=[,.;:!?')]|$|['’]s\b|\s(?:of|was|ruled|reigned|died|became|had)\b)"

ROMAN_RULES: list[Rule] = [
    (
        re.compile(rf"\b({NUMBERED})(s?) ({NUMERAL}) (and|or|to|through) ({NUMERAL})\b"),
        lambda match: f"{match[1]}{match[2]} {cardinal(value(match[3]))} {match[4]} {cardinal(value(match[5]))}",
    ),
    (re.compile(rf"\b({MORE_LETTERS}|XX)(?:th|st)?(?= [Cc]entur)"), lambda match: ordinal(value(match[1]))),
    (re.compile(r"\b(Super Bowl) ([XLVI]+)\b"), lambda match: f"{match[1]} {cardinal(value(match[2]))}"),
    (re.compile(r"\biPhone X(?=[SR]?\b)"), "iPhone ten"),
    (re.compile(rf"\b(?=[MDCLXVI]{{4}}){YEAR}\b"), lambda match: year(value(match[0]))),
    (
        re.compile(rf"\b({RULERS}) (?:({MORE_LETTERS}|[VX])\b(?![.]\s?[A-Z]\.)|(I)\b{AFTER_FIRST})"),
        lambda match: f"{match[1]} the {ordinal(value(match[2] or match[3]))}",
    ),
    (
        re.compile(rf"\b({NUMBERED}) ({NUMERAL})\b(?!['’](?:m|d|ll|ve))"),
        lambda match: f"{match[1]} {cardinal(value(match[2]))}",
    ),
    (
        re.compile(rf"\b(?!(?:An?|The|And|Or|In|On|Of|With|By|No)\b)([A-Z][a-z]+) ({MORE_LETTERS})\b"),
        lambda match: f"{match[1]} {cardinal(value(match[2]))}",
    ),
]
