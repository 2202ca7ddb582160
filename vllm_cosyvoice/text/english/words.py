"""English abbreviations, titles and initials."""

import re

from vllm_cosyvoice.text.english.patterns import CAPITAL, DASH, MONTH, SENTENCE_START, one_of
from vllm_cosyvoice.text.hidden import HIDDEN
from vllm_cosyvoice.text.rules import Rule

# wetext reads the first group the same way; the small letter of "doctor" is wetext's, and the model was trained on it.
TITLES = {
    "Mr": "Mister", "Mrs": "Misses", "Ms": "Miss", "Dr": "doctor", "Gen": "general", "Col": "colonel",
    "Capt": "captain", "Lt": "lieutenant", "Sgt": "sergeant", "Rev": "Reverend", "Hon": "Honorable",
    "Gov": "governor", "Mt": "Mount", "Ft": "Fort",
    "Prof": "Professor", "Sen": "Senator", "Rep": "Representative", "Pres": "President",
}  # fmt: skip
WORDS = {
    "e.g": "for example", "eg": "for example", "i.e": "that is", "vs": "versus", "approx": "approximately",
    "a.k.a": "also known as", "cf": "compare",
    "c/o": "care of", "ca": "circa", "incl": "including", "excl": "excluding", "esp": "especially",
    "govt": "government", "Govt": "Government", "misc": "miscellaneous", "dept": "department",
    "Dept": "Department", "w/o": "without",
}  # fmt: skip
WORDS |= {short.capitalize(): full.capitalize() for short, full in WORDS.items() if short not in ("ca", "a.k.a")}
LAST_WORDS = {  # words that may end a sentence
    "etc": "et cetera", "Inc": "Incorporated", "Ltd": "limited", "Co": "company", "Corp": "Corporation",
    "Jr": "junior", "Sr": "senior", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Hwy": "Highway",
    "Ph.D": "PHD", "M.D": "MD", "Ln": "Lane", "Pkwy": "Parkway",
}  # fmt: skip
SAINTS = (
    "John|Louis|Mary|Paul|Peter|George|Patrick|Helens?|Petersburg|Francis|Thomas|James|Joseph|Andrews?|Nicholas|Lucia"
    "|Catherine|Martin|Michael|Vincent|Albans|Ives|Kitts|Moritz|Tropez|Lawrence|Bernard|Clair|Pancras|Augustine|Anne"
    "|Anthony|Valentine|Stephen|Matthew|Mark|Luke|Jude|Cloud|Charles|Croix|Johns|Denis|Germain|Pierre"
)
DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Fri": "Friday", "Sat": "Saturday",
    "Sun": "Sunday", "Tues": "Tuesday", "Weds": "Wednesday", "Thur": "Thursday", "Thurs": "Thursday",
}  # fmt: skip
MONTHS = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June", "Jul": "July", "Aug": "August",
    "Sep": "September", "Sept": "September", "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
DAY = "|".join(DAYS)
SPAN = rf"(?:{'|'.join(DAYS.values())}|{MONTH}|[A-Z])"  # the ends of a range with an en dash
NUMBERED_WORDS = {
    "ext": "extension",
    "tel": "telephone",
    "max": "maximum",
    "min": "minimum",
    "est": "established",
    "No": "number",
    "Nos": "numbers",
    "Fig": "figure",
    "Vol": "volume",
    "p": "page",
    "pp": "pages",
    "Apt": "apartment",
    "Ch": "chapter",
    "Figs": "figures",
    "Op": "opus",
    "Tab": "table",
    "Art": "article",
    "Par": "paragraph",
    "Para": "paragraph",
    "Cl": "clause",
    "Sec": "section",
    "Eq": "equation",
}


NAME = r"(?:\b[A-Z][\w'’]*|\b\d+(?:st|nd|rd|th))"  # of a street
STREETS = {name: LAST_WORDS[name] for name in ("Ave", "Blvd", "Rd", "Hwy", "Ln", "Pkwy")} | {
    "St": "Street", "Dr": "Drive", "Ct": "Court", "Pl": "Place", "Sq": "Square", "Ter": "Terrace",
}  # fmt: skip
SIDES = {
    "N": "North", "S": "South", "E": "East", "W": "West", "NE": "Northeast", "NW": "Northwest", "SE": "Southeast",
    "SW": "Southwest",
}  # fmt: skip
SIDE = rf"(?:{one_of(SIDES)})"
NUMBERED_WORDS |= {short[0].swapcase() + short[1:]: full for short, full in NUMBERED_WORDS.items()}
BEFORE_YEAR = {"c": "circa", "b": "born", "d": "died"}
RATES = {"km/h": "kilometers per hour", "mi/h": "miles per hour", "m/s": "meters per second"}  # without a number
SENTENCE_STARTS = re.compile(SENTENCE_START)
ALSO = r"(?:,|/|\s?&|,? and|,? or)\s?"
# Short days are also words ("Sun", "Sat"), so they need another day or a time beside them.
DAY_RULES: list[Rule] = [
    (re.compile(rf"\b({DAY})\.?{DASH}({DAY})\b\.?"), lambda match: f"{DAYS[match[1]]} to {DAYS[match[2]]}"),
    (re.compile(rf"\b({DAY})\b\.?(?={ALSO}(?:{DAY})\b)"), lambda match: DAYS[match[1]]),
    (re.compile(rf"(?<=day)({ALSO})({DAY})\b(?!\.\w)"), lambda match: match[1] + DAYS[match[2]]),
    (re.compile(r"(?<=[a-z]day)/(?=[A-Z][a-z]+day\b)"), ", "),
    (
        re.compile(rf"\b([Cc]losed|[Nn]ext|[Ll]ast|[Ee]very) ({DAY})\b(?:\.(?= [a-z]))?"),
        lambda m: f"{m[1]} {DAYS[m[2]]}",
    ),
    (
        re.compile(
            rf"\b(?<![Tt]he )({DAY})\b\.?"
            r"(?=,?\s(?:at|from) (?:\d|noon|midnight)|: ?(?:\d|[Cc]losed)|\s[Cc]losed"
            r"|,?\s(?:noon|midnight|morning|afternoon|evening|night)\b)"
        ),
        lambda match: DAYS[match[1]],
    ),
]
WORD_RULES: list[Rule] = [
    (re.compile(rf"(?<=\d)\s?([ap])\.m\.{CAPITAL}(?!\s+(?:{DAY}|{MONTH}|E[SD]?T|P[SD]?T|GMT|UTC))"), r" \1m."),
    (re.compile(r"(?<=\d)\s?([ap])\.m\.", re.IGNORECASE), r" \1m"),
    (re.compile(rf"(?<![\w.])({one_of(TITLES)})\.(?=\s*[A-Z{HIDDEN}]|\s*(?:&|and)\s)"), lambda match: TITLES[match[1]]),
    (re.compile(r"(?<![\w.])(Mrs?|Ms|Dr)(?=\s+[A-Z])"), lambda match: TITLES[match[1]]),
    (
        re.compile(r"(?<=[a-z] )Dr\b\.?(?=,)|(?<=[a-z] )Dr\.(?=\s+(?:in|and|at|near|on)\b)|(?<=[a-z] )Dr(?=\.$)"),
        "Drive",
    ),
    # "5 W. Elm St.", "Elm St. NW", "Elm Ave".
    (
        re.compile(
            rf"(\b\d+ |(?<![\w.])(?=[NSEW]{{1,2}}\.? \d))({SIDE})\.? (?={NAME}(?: [A-Z]\w+)? (?:{one_of(STREETS)})\b)"
        ),
        lambda match: f"{match[1]}{SIDES[match[2]]} ",
    ),
    (
        re.compile(rf"({NAME} )({one_of(STREETS)})\.?,? ({SIDE})\b(?!\.?\w)\.?(?=,|\s|$)"),
        lambda match: f"{match[1]}{STREETS[match[2]]} {SIDES[match[3]]}",
    ),
    (re.compile(rf"\bSt\.?(?=\s+(?:{SAINTS})\b)"), "Saint"),
    (re.compile(rf"({NAME} )St\.(?:{SENTENCE_START}|(?=[\"”’)]*$))"), r"\1Street."),
    (re.compile(rf"({NAME} )St(?:\.(?!\s+[A-Z])|\.?(?=\s+{SIDE}\b)|\b(?!\.|\s+[A-Z]))"), r"\1Street"),
    (re.compile(r"\bSt\.(?=\s+[A-Z])"), "Saint"),
    # After "no." a sentence may start: "no. 5 people left".
    (
        re.compile(
            r"(?<![\w.])no\.\s?(?=\d[\w-]*(?:[.,;:)]|\s*$|\s(?:\d|(?:is|was|in|of|on|at|and|has|from|to|for)\b)))"
        ),
        "number ",
    ),
    (
        re.compile(
            rf"(?<![\w.])(?!no\.)(?:(?<!\d )|(?=No))({one_of(NUMBERED_WORDS)})\.\s?(?=\(?\d|(?<=No\. )(?:is|was)\b)"
        ),
        lambda match: NUMBERED_WORDS[match[1]] + " ",
    ),
    (re.compile(rf"(?<![\w.])({one_of(WORDS)})(?:\.,?|(?<=[wc]/o))(?=[\s,;:.)]|$)"), lambda match: WORDS[match[1]]),
    (re.compile(r"(?<!\w)([cbd])\. ?(?=\d{3,4}\b)"), lambda match: BEFORE_YEAR[match[1]] + " "),
    (re.compile(r"\bApt(?= [\d#])"), "apartment"),
    (re.compile(r"(?<=\d(?:st|nd|rd|th) )Fl\b\.?"), "Floor"),
    (re.compile(r"(?<=\d{4} )x(?=\d{2,5}\b)"), "extension "),
    (re.compile(r"\bvs\b\.?|(?<=\w )v\.(?= [A-Z])"), "versus"),
    (re.compile(r"(?<=\d )ext\.?(?= ?\d)"), "extension"),
    (re.compile(r"\bw/(?=\s)"), "with"),
    (re.compile(rf"\b({one_of(MONTHS)})\.?(?=\s+\d{{4}}\b)"), lambda match: MONTHS[match[1]]),
    (re.compile(rf"(?<![\w.])({one_of(LAST_WORDS)})\.{CAPITAL}"), lambda match: LAST_WORDS[match[1]] + "."),
    (re.compile(rf"(?<![\w.])({one_of(LAST_WORDS)})\.(?=[\s,;:)])"), lambda match: LAST_WORDS[match[1]]),
    (re.compile(rf"({NAME} )({one_of(STREETS.keys() - {'St', 'Dr'})})\b(?!\.\w)"), lambda m: m[1] + STREETS[m[2]]),
    (re.compile(r"\b([Aa])ttn\b"), r"\1ttention"),
    (re.compile(rf"(?<![\w/])(?<!\d )({one_of(RATES)})(?![\w/])"), lambda match: RATES[match[1]]),
    # Initials are joined to one word. The last dot is kept if it ends the text or a sentence.
    (
        re.compile(r"(?<![\w.])(?:[A-Z]\.\s?)+[A-Z]\.(?!\w)"),
        lambda match: re.sub(r"[.\s]", "", match[0]) + ("." if _ends_text(match) else ""),
    ),
    *DAY_RULES,
    (
        re.compile(rf"\b({one_of(MONTHS)})\.?[–-]({one_of(MONTHS)})\b\.?"),
        lambda match: f"{MONTHS[match[1]]} to {MONTHS[match[2]]}",
    ),
    (
        re.compile(rf"\b({SPAN})\s?–\s?({SPAN})\b"),
        lambda match: f"{MONTHS.get(match[1], match[1])} to {MONTHS.get(match[2], match[2])}",
    ),
    (re.compile(r"(?<![\w'])([A-Z]{2,})s(?![\w'])"), r"\1's"),  # as in wetext: TV's, GPU's
    (re.compile(r"\s*&\s*"), " and "),
    (re.compile(r"\b([Hh]e)/([Ss]he)\b|\b([Ss]he)/([Hh]e)\b"), lambda match: " or ".join(filter(None, match.groups()))),
    (re.compile(r"(?<![\w/])s/he\b"), "she or he"),
    (re.compile(r"(?<![\w/.:@])(?<!\d )([A-Za-z]{1,15})/([A-Za-z]{1,15})(?![\w/.])"), r"\1 \2"),
]


def _ends_text(match: re.Match[str]) -> bool:
    """Whether the dot of initials is kept because a new sentence follows, not a name."""
    return SENTENCE_STARTS.match(match.string, match.end()) is not None
