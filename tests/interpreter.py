"""Tests of Triton kernels on machines without a GPU.

Triton's interpreter runs kernels on CPU tensors, but has to be chosen before triton is imported. So a file of such
tests is run again by one of its own, in a process where it is.
"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

if INTERPRETED:
    from triton.runtime import interpreter

    # Half of the interpreter's time goes into conditions on integer overflow, which only `debug` would look at.
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    # A third of the rest would go into changing Triton's language at each call of a function, and back.
    interpreter._patch_lang = cache(interpreter._patch_lang)
    interpreter._LangPatchScope.restore = lambda scope: None  # type: ignore[method-assign]

runs_here = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="run by test_in_the_interpreter")
runs_elsewhere = pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the others run here")


def run_again(file: str) -> None:
    """Run the tests in `file` in the interpreter."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
