"""Finds out what every text contains that a pattern matches. To look for that is faster than to run the pattern."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

DIGIT = re.compile(r"\d")
LONGEST_RANGE = 100  # characters in a set of a pattern; some of a longer one are in most texts
RARE_TO_FREQUENT = "zqxjkvbpygfwmucldrhsinoate,0. "  # in texts that reach the rules; all other characters are rarer


class Content:
    """What a text contains, with "0" for each of its digits."""

    def __init__(self, text: str) -> None:
        self.text = DIGIT.sub("0", text)
        self.characters = frozenset(self.text)


@dataclass
class Needs:
    """What a text contains if a pattern matches it: all of `strings`, and a character of each of `sets`."""

    strings: set[str] = field(default_factory=set)
    sets: set[frozenset[str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._characters = frozenset("".join(self.strings))
        self._longer = tuple(string for string in self.strings if len(string) > 1)

    def are_met(self, content: Content) -> bool:
        """Whether a text with this `content` may match. This is called for each pattern, so it is fast."""
        if not self._characters <= content.characters:
            return False
        for characters in self.sets:
            if characters.isdisjoint(content.characters):
                return False
        for string in self._longer:  # noqa: SIM110 - faster
            if string not in content.text:
                return False
        return True

    def rarest(self) -> frozenset[str] | None:
        """The characters one of which is needed, and that the fewest texts contain."""
        return min((*map(frozenset, self._characters), *self.sets), key=_frequency, default=None)


def needs(pattern: re.Pattern[str]) -> Needs:
    """What each text contains that `pattern` matches."""
    return _Reader(ignore_case=bool(pattern.flags & re.IGNORECASE)).needs(parser.parse(pattern.pattern, pattern.flags))


@dataclass
class _Reader:
    """Reads a parsed pattern; what it does not know, it takes for a gap that any text fills."""

    ignore_case: bool
    strings: set[str] = field(default_factory=set)
    sets: set[frozenset[str]] = field(default_factory=set)

    def needs(self, items: Iterable[tuple[Any, Any]]) -> Needs:
        self._end(self._read(items))
        return Needs(self.strings, self.sets)

    def _read(self, items: Iterable[tuple[Any, Any]], before: str = "") -> str:
        """Read `items` after the string `before`, and return the string at their end."""
        for kind, value in items:
            if kind in (code.AT, code.ASSERT_NOT):
                continue
            if kind is code.SUBPATTERN and not value[1] and not value[2]:  # with the flags of the pattern
                before = self._read(value[3], before)
            elif kind in (code.MAX_REPEAT, code.MIN_REPEAT):
                before = self._read_repeated(value, before)
            elif kind is code.ASSERT and value[0] > 0:
                self._end(self._read(value[1], before))
            elif kind is code.ASSERT:
                behind = self._read(value[1])
                self._end(behind if before else "")
                before = before or behind
            elif characters := self._characters(kind, value):
                if len(characters) == 1:
                    before += "".join(characters)
                else:
                    before = self._end(before)
                    self.sets.add(characters)
            else:
                before = self._end(before)
                if kind is code.BRANCH:
                    self._read_branches(value[1])
        return before

    def _read_repeated(self, repeat: tuple[int, int, Iterable[tuple[Any, Any]]], before: str) -> str:
        """Read an item that stands at least so many times one after another, with any text before the last times."""
        least, most, items = repeat
        for _ in range(least):
            before = self._read(items, before)
        if most > least:
            before = self._end(before)
            for _ in range(least):
                before = self._read(items, before)
        return before

    def _read_branches(self, branches: Iterable[Iterable[tuple[Any, Any]]]) -> None:
        rarest = [_Reader(self.ignore_case).needs(branch).rarest() for branch in branches]
        if all(rarest):
            self.sets.add(frozenset().union(*filter(None, rarest)))

    def _end(self, before: str) -> str:
        if before:
            self.strings.add(before)
        return ""

    def _characters(self, kind: Any, value: Any) -> frozenset[str] | None:  # noqa: ANN401
        """The characters that an item stands for; None if they are many or the item is more than a set of them."""
        found: set[str] = set()
        for part, argument in value if kind is code.IN else [(kind, value)]:
            if part is code.LITERAL:
                found.add(chr(argument))
            elif part is code.RANGE and argument[1] - argument[0] < LONGEST_RANGE:
                found |= {chr(point) for point in range(argument[0], argument[1] + 1)}
            elif part is code.CATEGORY and argument is code.CATEGORY_DIGIT:
                found.add("0")
            else:
                return None
        if self.ignore_case and any(character.isalpha() for character in found):
            return None
        return frozenset("0" if character.isdecimal() else character for character in found)


def _frequency(characters: frozenset[str]) -> tuple[int, list[str]]:
    return sum(2 + RARE_TO_FREQUENT.find(character) for character in characters), sorted(characters)
