"""What everyday text becomes, from public bug reports (with their source) and neighbours that must not change."""

import json
from pathlib import Path

import pytest

from vllm_cosyvoice.text.normalise import normalise

FILES = sorted((Path(__file__).parent / "text_cases").glob("*.jsonl"))
CASES = [
    pytest.param(case, id=f"{path.stem}-{case['input'][:40]!r}")
    for path in FILES
    for case in map(json.loads, path.read_text(encoding="utf-8").splitlines())
]


@pytest.mark.parametrize("case", CASES)
def test_text_is_spoken_as_people_say_it(case: dict[str, str]) -> None:
    assert normalise(case["input"], case.get("language")) == case["spoken"]
