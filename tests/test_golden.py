"""The golden numbers, under pytest: one test an area, which lists what failed."""

import pytest

from tests.golden import AREAS, DATA, cases


@pytest.mark.parametrize("area", AREAS)
def test_matches_the_reference(area: str) -> None:
    results = list(cases(DATA, "", (area,)))
    assert results, "the area has no case"
    assert not [case for case in results if not case.passed]
