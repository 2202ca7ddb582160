"""The files with tests of Triton kernels once more, where there is no GPU: in one process, as imports take seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpreter import DEVICE, INTERPRETED

pytest.importorskip("triton")

FILES = [file for file in sorted(Path(__file__).parent.glob("test_*.py")) if "\n@runs_here\n" in file.read_text()]


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the others run here")
def test_every_kernel_computes_what_pytorch_does() -> None:
    assert FILES, "without a file, all tests would run"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, FILES)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
