"""The reference's text front end on whole texts: segments, and the form for prompts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.golden_cases import Case
from vllm_cosyvoice.text.characters import has_markup
from vllm_cosyvoice.text.front_end import segments
from vllm_cosyvoice.text.normalise import is_chinese, normalise

FILE = "text.json"


def cases(data: Path, salt: str) -> Iterator[Case]:
    """One case a text; there are no weights, so `salt` changes nothing."""
    for item in json.loads((data / FILE).read_text(encoding="utf-8")):
        yield compare(item["text"], item["segments"], item["prompt"])


def compare(text: str, expected: list[str] | str, expected_prompt: str | None) -> Case:
    """Our segments and prompt form of `text` against the reference's, or against sense where they differ by design."""
    ours = our_segments(text)
    prompt = text if has_markup(text) else normalise(text)
    equal = ours == expected and prompt == expected_prompt
    passed, note = equal, "" if equal else f"segments {ours}, expected {expected}; prompt {prompt!r}"
    if isinstance(expected, str):
        passed = ours == our_segments(" ".join(text.split())) and keeps_the_words(text, ours)
        note = f"deliberate difference: the reference fails ({expected}), ours gives {ours}"
    elif text.strip().isdecimal() and not equal:
        passed = bool(ours) and not re.search(r"\d", prompt) and not is_chinese(prompt)
        note = f"deliberate difference: the reference reads {expected} in Chinese, ours gives {ours}"
    return Case(FILE, repr(text[:36]), float(not equal), float(not equal), passed, note)


def our_segments(text: str) -> list[str]:
    """Segments with the length that the golden data was made with; none for text with nothing to speak."""
    try:
        return segments(text, normalise, lambda part: len(part.split()))
    except ValueError:
        return []


def keeps_the_words(text: str, spoken: list[str]) -> bool:
    """Whether every plain word of `text` is spoken, no digit is left, and something is spoken if `text` has a word."""
    said = " ".join(spoken).lower()
    words = re.findall(r"[A-Za-z]{4,}", text)
    has_content = re.search(r"\w", text) is not None
    return bool(spoken) == has_content and all(word.lower() in said for word in words) and not re.search(r"\d", said)
