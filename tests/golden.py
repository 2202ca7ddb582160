"""Compare the shipped code with the reference networks' numbers: `python -m tests.golden --data DIR --salt SALT`.

One line a case; the exit status is 1 if any case fails.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.golden_cases import Case

DATA = Path(__file__).with_name("golden_data")
AREAS = ("text", "features", "ras", "hift", "flow", "llm")
COSYVOICE3_DATA = Path(__file__).with_name("golden_data3")
COSYVOICE3_AREAS = ("features", "causal_hift", "dit_flow", "llm")


def areas(data: Path) -> tuple[str, ...]:
    """The areas that `data` has cases of, by the family of its language model."""
    manifest = json.loads((data / "manifest.json").read_text())
    return AREAS if "llm_embedding.weight" in manifest["llm.small"] else COSYVOICE3_AREAS


def cases(data: Path, salt: str, chosen: tuple[str, ...]) -> Iterator[Case]:
    """All cases of the `chosen` areas, computed with weights rebuilt from `data`'s manifest and `salt`."""
    for area in chosen:
        yield from import_module(f"tests.golden_cases.{area}").cases(data, salt)


def main() -> int:
    """Print every case, and count the failures."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="directory with manifest.json, *.npz and text.json")
    parser.add_argument("--salt", default="", help="salt of the seeded weights (default: empty)")
    parser.add_argument(
        "--area",
        choices=sorted({*AREAS, *COSYVOICE3_AREAS}),
        action="append",
        help="only this area; may be given several times",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    failed = total = 0
    for case in cases(arguments.data, arguments.salt, tuple(arguments.area or areas(arguments.data))):
        verdict = "pass" if case.passed else "FAIL"
        print(
            f"{verdict}  {case.file:16} {case.name:40} max {case.max_error:9.2e}  relative {case.relative_error:9.2e}"
            f"  {case.note}".rstrip(),
            flush=True,
        )
        failed += not case.passed
        total += 1
    print(f"{total - failed} of {total} cases passed")
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
