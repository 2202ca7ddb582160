"""English names of files and paths: "report.pdf", "/etc/hosts"."""

import re

from vllm_cosyvoice.text.file_names import EXTENSION
from vllm_cosyvoice.text.rules import Rule


def _name(match: re.Match[str]) -> str:
    spoken = match[0].replace(".", " dot ").replace("_", " underscore ")
    return re.sub(r"(?<=[A-Za-z])(?=\d)", " ", spoken)


def _path(match: re.Match[str]) -> str:
    spoken = match[0].replace("~", "tilde").replace("/", " slash ").replace("\\", " backslash ").replace(":", " colon")
    return spoken.strip()


FILE_RULES: list[Rule] = [
    (re.compile(rf"(?<![\w.@/-])[\w-]*(?:\.[\w-]+){{0,3}}\.{EXTENSION}(?![\w@]|\.\w)"), _name),
    (re.compile(r"(?<![\w./\\-])(?:~|\.{1,2})?(?:/[A-Za-z][\w-]*){2,}/?(?![\w/])|(?<!\S)~(?:/[\w-]+)+/?"), _path),
    (re.compile(r"\b[A-Z]:(?:\\[\w-]+)+\\?"), _path),
]
