"""The words of each European language."""

from vllm_cosyvoice.text.european.languages.dutch import DUTCH
from vllm_cosyvoice.text.european.languages.french import FRENCH
from vllm_cosyvoice.text.european.languages.german import GERMAN
from vllm_cosyvoice.text.european.languages.italian import ITALIAN
from vllm_cosyvoice.text.european.languages.portuguese import PORTUGUESE
from vllm_cosyvoice.text.european.languages.russian import RUSSIAN
from vllm_cosyvoice.text.european.languages.spanish import SPANISH

WORDS = {
    "de": GERMAN,
    "fr": FRENCH,
    "es": SPANISH,
    "it": ITALIAN,
    "pt": PORTUGUESE,
    "ru": RUSSIAN,
    "nl": DUTCH,
}
