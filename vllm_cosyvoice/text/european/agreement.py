"""Numbers that agree with the noun after them: "eine Stunde", "veintiún años", "две минуты"."""

import re

from num2words import num2words

from vllm_cosyvoice.text.european.languages import WORDS
from vllm_cosyvoice.text.european.languages.words import Counted
from vllm_cosyvoice.text.spelled_numbers import spell_number

# Nouns that a number follows as a name, so that it does not count the next word.
NUMBERED = (
    "satz band abschnitt raum tor halle aufgabe frage punkt gruppe modell "
    "seite kapitel teil nummer stufe phase artikel absatz klasse gleis linie zimmer bus version platz typ "
    "schritt página capítulo número nivel fase tipo artículo opción paso parte punto línea habitación versión "
    "pagina capitolo numero livello articolo opzione passo linea versione nível artigo opção linha versão page "
    "chapitre numéro niveau type article option étape partie ligne страница глава номер уровень часть статья "
    "пункт шаг группа линия этап версия дом квартира"
)
# In spite of their ending.
MASCULINE = (
    "día días mapa mapas problema problemas sistema sistemas programa programas tema temas idioma idiomas "
    "planeta planetas dia dias euro"
)
FRENCH_FEMININE = re.compile(
    r"(?:heure|minute|seconde|foi|personne|semaine|année|page|journée|nuit|femme|fille|voiture|maison|place|chambre"
    r"|pièce|table|porte|ville|langue|ligne|lettre|image|vidéo|photo|bouteille|tasse|pomme|sœur|mère|tante|cousine|amie"
    r"|équipe|école|église|rue|carte|clé|.*tion|.*ée|.*ette|.*ure"
    r"|.*ance|.*ence|.*té)s?$"
)
FEMININE = {
    "de": re.compile(r".*(?:e|ung|heit|keit|ion|schaft|tät|ik|ur)$"),
    "fr": FRENCH_FEMININE,
    "es": re.compile(
        r"(?:.*(?:as?|ión|iones|dad|dades|tad|tades)|ve[zc]e?s?|mujer(?:es)?|noches?|tardes?|partes?|clases?|calles?|manos?|flores|luces|veces)$"
    ),
    "it": re.compile(r".*a$"),
    "pt": re.compile(
        r"(?:.*(?:as?|ãs?|ção|ções|dades?|gem|gens)|vez(?:es)?|mulher(?:es)?|noites?|tardes?|partes?|classes?|colher(?:es)?|flor(?:es)?|mãos?|luz(?:es)?)$"
    ),
}


def spell(digits: str, language: str, gender: str = "m") -> str:
    """A whole number before a noun of `gender`: "21" → "veintiún", "vinte e uma", "двадцать одна"."""
    value = int(re.sub(r"\D", "", digits))
    if language == "ru":
        return str(num2words(value, lang="ru", gender=gender))
    words = spell_number(f"{value:,}".replace(",", "."), language)
    if language == "de" and value == 1:
        return "eine" if gender == "f" else "ein"
    if language == "fr" and gender == "f":
        return re.sub(r"un$", "une", words)
    if language == "es":
        if gender == "f":
            return re.sub(r"uno$", "una", words).replace("cientos", "cientas").replace("quinientos", "quinientas")
        return re.sub(r"veintiuno$", "veintiún", re.sub(r"\buno$", "un", words))
    if language == "it" and value == 1:
        return "una" if gender == "f" else "un"
    if language == "pt" and gender == "f":
        return re.sub(r"dois$", "duas", re.sub(r"um$", "uma", words)).replace("entos", "entas")
    return words


def counted(amount: str, noun: Counted, language: str) -> str:
    """An amount, maybe with a decimal comma, and the noun in its form."""
    whole, comma, decimals = amount.partition(",")
    whole = re.sub(r"\D", "", whole)
    if comma:
        form = noun.few if language == "ru" else noun.one if language == "fr" and int(whole) < 2 else noun.many
        return f"{spell_number(f'{whole},{decimals}', language)} {form}"
    if len(whole) > 15 or (len(whole) > 1 and whole[0] == "0"):
        return f"{spell_number(whole, language)} {noun.many}"
    return f"{spell(whole, language, noun.gender)} {_form(int(whole), noun, language)}"


def _form(value: int, noun: Counted, language: str) -> str:
    if language != "ru":
        return noun.one if value == 1 else noun.many
    if value % 100 in range(11, 15):
        return noun.many
    return noun.one if value % 10 == 1 else noun.few if value % 10 in (2, 3, 4) else noun.many


def agree(match: re.Match[str], language: str) -> str:
    """A number that ends in 1 or 2, in the gender of the noun that it counts."""
    before, digits, noun = match["before"] or "", match["number"], match["noun"]
    if (
        len(digits) > 9
        or digits[0] == "0"
        or before.strip().lower() in NUMBERED.split()
        or noun.lower() in WORDS[language].not_nouns.split()
        or (language == "de" and (noun[0].islower() or digits != "1"))
    ):
        return match[0]
    gender = gender_of(noun, int(digits), language)
    if gender is None:
        return match[0]
    if language == "it" and digits == "1":
        return before + _italian_article(noun, gender)
    return f"{before}{spell(digits, language, gender)} {noun}"


def gender_of(noun: str, value: int, language: str) -> str | None:
    """The gender of `noun` after the number `value`, by its ending; None where it does not matter."""
    noun = noun.strip().lower()
    if language == "ru":
        if value % 100 in (11, 12):
            return None
        if value % 10 == 2:
            return "f" if noun[-1] in "ыи" else None
        return {"а": "f", "я": "f", "о": "n", "е": "n"}.get(noun[-1])
    if language not in FEMININE:
        return None
    return "f" if noun not in MASCULINE.split() and FEMININE[language].match(noun) else "m"


def _italian_article(noun: str, gender: str) -> str:
    if gender == "f":
        return f"un'{noun}" if noun[0].lower() in "aeiou" else f"una {noun}"
    return f"uno {noun}" if re.match(r"z|gn|ps|s[^aeiou]", noun.lower()) else f"un {noun}"
