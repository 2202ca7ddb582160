"""A rule is skipped only in texts that its pattern can't match."""

import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

from vllm_cosyvoice import text
from vllm_cosyvoice.text import european
from vllm_cosyvoice.text.needs import Content, needs
from vllm_cosyvoice.text.rules import Rules

TEXTS = [
    case[field]
    for path in (Path(__file__).parent / "text_cases").glob("*.jsonl")
    for case in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    for field in ("input", "spoken")
]
MODULES = [importlib.import_module(found.name) for found in pkgutil.walk_packages(text.__path__, f"{text.__name__}.")]
PATTERNS = [
    pattern
    for module in MODULES
    for name, table in vars(module).items()
    if name.endswith("RULES") and isinstance(table, list)
    for pattern, _ in table
]
PATTERNS += [pattern for language in european.LANGUAGES for _, pattern, _ in european._rules(language)._rules]


@pytest.mark.parametrize(
    ("pattern", "strings", "sets"),
    [
        ("ab", {"ab"}, set()),
        (r"\bSt\.(?= [A-Z])", {"St.", "St. "}, {"ABCDEFGHIJKLMNOPQRSTUVWXYZ"}),
        (r"(?<=\d)\s?x(?!y)", {"0", "x"}, set()),
        (r"(?<=\d)x(?=[1-9])z", {"0x0", "0xz"}, set()),
        (r"a(?<=b)c", {"ac", "b"}, set()),
        (r"\d+\.\d{2}", {"0.00", "0"}, set()),
        (r"a+b", {"a", "ab"}, set()),
        (r"(?:a[xy]){2,}b", {"a", "b"}, {"xy"}),
        ("a?b*c", {"c"}, set()),
        ("q(?:th|ex)", {"q"}, {"hx"}),
        ("q(?:th|e?)", {"q"}, set()),
        ("(z)\\1", {"z"}, set()),
        ("(?i:z)y", {"y"}, set()),
        (r"a.[^b]\w[à-\uffff]c", {"a", "c"}, set()),
    ],
)
def test_what_a_pattern_needs(pattern: str, strings: set[str], sets: set[str]) -> None:
    found = needs(re.compile(pattern))
    assert found.strings == strings
    assert found.sets == set(map(frozenset, sets))


def test_letters_of_any_case_are_not_needed() -> None:
    assert needs(re.compile("a:[bc]", re.IGNORECASE)).strings == {":"}


@pytest.mark.parametrize("missing", ["12", "10:3", "x=", "10;30 x="])
def test_a_text_without_what_is_needed_is_not_matched(missing: str) -> None:
    needed = needs(re.compile(r"\d:\d\d [xyz]="))
    assert needed.are_met(Content("9:15 y="))
    assert not needed.are_met(Content(missing))


def test_each_text_that_a_rule_matches_has_what_it_needs() -> None:
    assert len(PATTERNS) > 500
    contents = [(written, Content(written)) for written in TEXTS]
    for pattern in PATTERNS:
        needed = needs(pattern)
        wrong = [written for written, content in contents if not needed.are_met(content) and pattern.search(written)]
        assert not wrong, pattern


def test_a_rule_that_fits_only_what_an_earlier_one_wrote_is_applied() -> None:
    rules = Rules([(re.compile("one"), "two")], [(re.compile("two"), "three"), (re.compile(r"\d"), "digit")])
    assert rules.apply("one ٣") == "three digit"
