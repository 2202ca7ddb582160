"""What only a GPU shows: `make test-gpu` runs it, and tells on what, and what was measured."""

import platform
import subprocess
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
FIGURE = "figure"  # a property of a test, which also comes from other processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs a GPU: make test-gpu"))


def pytest_report_header() -> list[str]:
    if not torch.cuda.is_available():
        return []
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    card, capability = torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("vllm", "torch", "triton", "transformers"))
    return [
        f"{card} (compute capability {capability}), driver {driver}",
        f"{versions}, Python {platform.python_version()}",
    ]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a line about what was measured, to be shown at the end of the run."""
    return partial(record_property, FIGURE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    lines = [value for report in reports for name, value in report.user_properties if name == FIGURE]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(str(line))
