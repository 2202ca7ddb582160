"""What only a GPU shows: `make test-gpu` runs it, and tells on what, and what was measured."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs a GPU: make test-gpu"))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


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
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run: what was measured."""
    return request.config.stash[FIGURES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[FIGURES]:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
