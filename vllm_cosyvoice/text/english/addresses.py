"""English addresses: URLs, domains, e-mail addresses, MAC and IPv6 addresses."""

import re

from vllm_cosyvoice.text.english.numbers import cardinal, one_by_one, year

DOMAINS = "com|org|net|edu|gov|io|ai|dev|cn|uk|de|app|info|biz|xyz|eu|fr|jp|ca|ch|nl|tv|gg|ly|co"
URL_PART = r"[^\s\"“”<>()]"
HEX = r"[\dA-Fa-f]"
MAC = rf"(?<![\w:-]){HEX}{{2}}(?:[:-]{HEX}{{2}}){{5}}(?![\w:-])"
IPV6 = rf"(?<![\w:])(?=[\da-f:]*\d)(?:{HEX}{{1,4}}:){{1,6}}(?::{HEX}{{1,4}}|(?::{HEX}{{1,4}}){{2,6}}|:)(?![\w:])"
ADDRESSES = re.compile(
    rf"((?:(?:https?|ftp|wss?)://|\bwww\.){URL_PART}+|(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    rf"|(?<![A-Za-z\d.-])[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)*\.(?:{DOMAINS})\b(?:/{URL_PART}*)?|{MAC}|{IPV6})"
)
HARDWARE = re.compile(f"{MAC}|{IPV6}")
PARTS = re.compile(r"[^\W\d_]+|\d+|.")
SIGNS = {
    ".": "dot", "/": "slash", ":": "colon", "@": "at", "-": "dash", "_": "underscore", "#": "hash", "~": "tilde",
    "?": "question mark", "=": "equal sign", "&": "ampersand", "+": "plus", "%": "percent", "*": "asterisk",
    "!": "exclamation mark", ",": "comma", ";": "semicolon",
}  # fmt: skip
LETTERS = re.compile(r"^(?:https?|ftp|wss?|www)\b|(?<=\.)(?:uk|de|us|cn|fr|eu|jp|tv)\b")  # said letter by letter


def spoken_address(address: str) -> str:
    """Each sign by its name, each number as a number; the letters and digits of a MAC address one by one."""
    if HARDWARE.fullmatch(address):
        colon = ", " if len(re.findall(r"[:-]", address)) == 5 and "::" not in address else " colon "
        return colon.join(one_by_one(part.upper()) for part in re.split("[:-]", address)).replace("  ", " ")
    address = LETTERS.sub(lambda letters: letters[0].upper(), address)
    return " ".join(SIGNS.get(part) or _number(part) for part in PARTS.findall(address))


def _number(part: str) -> str:
    if not part.isdecimal():
        return part
    if len(part) > 1 and part[0] == "0":
        return one_by_one(part)
    return year(part) if re.fullmatch(r"(?:19|20)\d\d", part) else cardinal(part)
