"""The reference's text front end on whole texts: segments, and the form for prompts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.golden_cases import Case
from vllm_cosyvoice.text.characters import has_markup
from vllm_cosyvoice.text.front_end import segments
from vllm_cosyvoice.text.languages import IDEOGRAPH
from vllm_cosyvoice.text.normalise import normalise

FILE = "text.json"

# Where ours differs on purpose: text → the segments that are wanted, and what is wrong with the reference's.
DIFFERENCES = {
    "It costs $3.50, or 20% less on 2024-05-01.": (
        ["It costs three dollars fifty cents, or twenty percent less on the first of may twenty twenty four."],
        "it reads cents as a decimal",
    ),
    "Call 555-1234 now!": (
        ["Call five five five, one two three four now!"],
        "it takes a telephone number for a range",
    ),
    "换行\n也要处理": (["换行。也要处理。"], "it runs lines together, so that headings are not heard as such"),
    "价格是￥12.5元，": (["价格是十二点五元。"], "it tears the amount in two"),
    '"Quoted." she said.': (['"Quoted." she said.'], "it puts backslashes ahead of quotes"),
    "Version 2.0.1 released on 1/2/2023": (
        ["Version two point zero point one released on the second of january twenty twenty three."],
        "it ends the sentence within the version",
    ),
}


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
    if text in DIFFERENCES:
        wanted, reason = DIFFERENCES[text]
        passed, note = ours == wanted, f"deliberate difference: {reason}, ours gives {ours}"
    elif isinstance(expected, str):
        passed = ours == our_segments(" ".join(text.split())) and keeps_the_words(text, ours)
        note = f"deliberate difference: the reference fails ({expected}), ours gives {ours}"
    elif text.strip().isdecimal() and not equal:
        passed = bool(ours) and not re.search(r"\d", prompt) and not IDEOGRAPH.search(prompt)
        note = f"deliberate difference: the reference reads {expected} in Chinese, ours gives {ours}"
    return Case(FILE, repr(text[:36]), float(not equal), float(not equal), passed, note)


def our_segments(text: str) -> list[str]:
    """Segments with the length that the golden data was made with."""
    return segments(text, normalise, lambda part: len(part.split()))


def keeps_the_words(text: str, spoken: list[str]) -> bool:
    """Whether every plain word of `text` is spoken, no digit is left, and something is spoken if `text` has a word."""
    said = " ".join(spoken).lower()
    words = re.findall(r"[A-Za-z]{4,}", text)
    has_content = re.search(r"\w", text) is not None
    return bool(spoken) == has_content and all(word.lower() in said for word in words) and not re.search(r"\d", said)
