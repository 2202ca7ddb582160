"""The golden numbers, under pytest: one test an area, which lists what failed."""

from pathlib import Path

import pytest

from tests.golden import AREAS, COSYVOICE3_AREAS, COSYVOICE3_DATA, DATA, cases


@pytest.mark.parametrize(
    ("data", "area"), [(DATA, area) for area in AREAS] + [(COSYVOICE3_DATA, area) for area in COSYVOICE3_AREAS]
)
def test_matches_the_reference(data: Path, area: str) -> None:
    results = list(cases(data, "", (area,)))
    assert results, "the area has no case"
    assert not [case for case in results if not case.passed]
