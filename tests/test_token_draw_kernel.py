"""The Triton kernel, on a GPU or, where there is none, in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")


def test_the_kernel_draws_what_pytorch_draws() -> None:
    """In a process of its own, because the interpreter must be chosen before Triton is imported."""
    environment = dict(os.environ) if torch.cuda.is_available() else {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.token_draw_kernel"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
