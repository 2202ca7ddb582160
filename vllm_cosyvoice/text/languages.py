"""Detects the language of a text by its script, and for Latin script by common words."""

import re

CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*")
NAMES = {
    "chinese": "zh", "mandarin": "zh", "cantonese": "zh", "english": "en", "japanese": "ja", "korean": "ko",
    "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt", "russian": "ru",
}  # fmt: skip
SAME_AS = {"yue": "zh", "cmn": "zh", "wuu": "zh", "nan": "zh", "jp": "ja", "kr": "ko", "nb": "no", "nn": "no"}

IDEOGRAPH = re.compile(r"[\u4e00-\u9fff]")
KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]")
JAPANESE_ONLY = re.compile(r"[円駅働込峠畑]")
CHINESE_ONLY = re.compile(r"[这们吗呢吧说你您她很给让为对时语谢个這們嗎]")
CHINESE_MARK = re.compile(r"[，。；：！？（）、％＝]")
HANGUL = re.compile(r"[\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e]")
OTHER_SCRIPTS = {
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "ar": re.compile(r"[\u0620-\u064a]"),
    "hi": re.compile(r"[\u0900-\u0963]"),
    "th": re.compile(r"[\u0e00-\u0e4f]"),
}
UKRAINIAN_ONLY = re.compile(r"[іїєґІЇЄҐ]")
LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
# A word of running text: no letters next to a digit ("10am"), no part of an address or of "e.g.".
LATIN_WORD = re.compile(r"(?<![\w.@/-])[A-Za-z\u00c0-\u024f\u1ea0-\u1ef9]{2,}(?![\w@/-]|\.\w)")

# Words that indicate a language. Those before the bar give two points each. Those after it give one point, because they
# are also names or words of another language.
WORDS = {
    "en": "the of and is are was were this that with have has you your they it its for from we he she will would | "
    "in to on at by be not or as an but my our us all about there their his her him me do if please",
    "de": "ich nicht und wir haben habe ist sind für auf eine einen einem einer das uhr kostet kosten jahre jahren "
    "jahr es gibt oktober dezember januar februar märz juni juli wird wurde bis zum zur auch noch nur kommt wohnt "
    "wohnen kinder tage prozent heute morgen oder aber wenn bei nach vom seit über bitte kann sich "
    "werden wurden papst könig "
    "kapitel seite sekunden punkten statt rufen nehmen zimmer | "
    "der die den dem ein im am um von zu er sie mit euro hat aus war ab mai",
    "fr": "je nous vous sont avec dans une ans heures euros être cette qui coûte mètres jours ils elle avons "
    "heure mois chats enfants fois appelez personnes voiture mme janvier février avril juillet août septembre "
    "octobre novembre "
    "décembre mais | "
    "le la et un du de les des au en sur est pour ai il ce pas mai",
    "es": "tengo tiene tenemos tienen hay una años cuesta cuestan está días muy pero metros personas compré quiero "
    "enero febrero marzo abril junio julio agosto septiembre octubre noviembre diciembre siglo capítulo litro mide sra "
    "más también porque reunión calle hasta desde fue hoy ayer | "
    "los las de la que el en un se del al su con por para es son euros horas mayo pesa",
    "it": "ho abbiamo sono della delle degli gli anni che una metri giorni ore questo gatti alle dei nel secolo "
    "gennaio febbraio maggio giugno luglio settembre ottobre dicembre riunione più perché anche litro dott vinto | "
    "ha vivo di la le un da in non il con euro costa per dal sig pesa",
    "pt": "tenho temos tem são não uma você dias metros pessoas reais gatos às custa janeiro fevereiro março maio "
    "junho julho setembro outubro novembro dezembro mede sra também seu "
    "sua até andar ganhou | "
    "na moro de que um do da em os dos para anos com euros horas dia pesa",
    "nl": "ik het een wij hebben heeft zijn niet voor jaar uur deze katten kost keer mei maart bijvoorbeeld | "
    "de is in op te er met dat van en euro om",
    "sv": "jag och har är det att inte med för ett kostar år | en på av den som i till",
    "pl": "mam jest nie się ma lat kosztuje złotych | na w z do to i",
    "tr": "bir ve için var yıl saat lira çok | bu de da",
    "id": "saya dan yang ada tidak untuk orang rupiah tahun | di ke ini itu",
    "vi": "tôi có là không và của năm người đồng | một",
}  # fmt: skip
POINTS: dict[str, list[tuple[str, int]]] = {}  # word → its languages, with the points for each
for _language, _words in WORDS.items():
    for _points, _group in zip((2, 1), _words.split("|"), strict=True):
        for _word in _group.split():
            POINTS.setdefault(_word, []).append((_language, _points))
LETTERS = {
    "de": "äöüß", "fr": "çœêèàùîïé", "es": "ñ¿¡", "pt": "ãõ", "it": "ìò", "sv": "å", "pl": "ąęłżźćśń", "tr": "ğış",
    "vi": "đơưạảấầẩậắằặẹẻếềểệịọốồổộớờợụủứừửựỳỹ", "da": "øæ", "cs": "ěřů", "ro": "țșă", "hu": "őű",
}  # fmt: skip
ENOUGH_POINTS = 2


def language_code(language: str) -> str:
    """Convert `language` to a code: "en-US" → "en", "yue" → "zh", "English" → "en". Raises ValueError for others."""
    if name := NAMES.get(language.lower()):
        return name
    if not CODE.fullmatch(language):
        raise ValueError(f'The language {language!r} is not a code such as "en", "zh", "ja", "ko" or "de".')
    code = re.split("[-_]", language.lower())[0]
    return SAME_AS.get(code, code)


def language_of(text: str) -> str:
    """The code of the language of `text`; English by default."""
    kana = len(KANA.findall(text))
    if (kana or JAPANESE_ONLY.search(text)) and kana >= 3 * len(CHINESE_ONLY.findall(text)):
        return "ja"
    hangul = len(HANGUL.findall(text))
    if ideographs := len(IDEOGRAPH.findall(text)):
        return "ko" if hangul > ideographs else "zh"
    if text.isascii():
        return _by_words(text)
    if CHINESE_MARK.search(text) and not re.search(r"[^\W\d_]{2}", text):  # a line of formulas
        return "zh"
    counts = {code: len(script.findall(text)) for code, script in OTHER_SCRIPTS.items()} | {"ko": hangul}
    most = max(counts, key=lambda code: counts[code])
    if (most == "ko" and hangul) or counts[most] > len(LATIN.findall(text)):
        return "uk" if most == "ru" and UKRAINIAN_ONLY.search(text) else most
    return _by_words(text)


def _by_words(text: str) -> str:
    points = dict.fromkeys(WORDS, 0)
    for word in LATIN_WORD.findall(text):
        for language, word_points in POINTS.get(word.lower(), ()) if not word.isupper() else ():
            points[language] += word_points
    if not text.isascii():
        for language, letters in LETTERS.items():
            count = sum(letter in letters for letter in text.lower())
            points[language] = points.get(language, 0) + min(count, ENOUGH_POINTS)
    if "R$" in text:  # Brazilian money
        points["pt"] += 2
    best = max(points, key=lambda language: points[language])
    return best if points[best] >= ENOUGH_POINTS and points[best] > points["en"] else "en"
