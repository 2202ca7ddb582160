"""Tests of Triton kernels on machines without a GPU.

Triton's interpreter runs kernels on CPU tensors, but has to be chosen before triton is imported. So
`test_in_the_interpreter.py` runs the files of such tests again, in a process where it is.
"""

import os
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

if INTERPRETED:
    from triton.backends import backends
    from triton.runtime import interpreter

    # vLLM, imported later, would not use a Triton that does not compile for CPUs.
    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: False), compiler=None)
    # Half of the interpreter's time goes into conditions on integer overflow, which only `debug` would look at.
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    # A third of the rest would go into changing Triton's language at each call of a function, and back.
    interpreter._patch_lang = cache(interpreter._patch_lang)
    interpreter._LangPatchScope.restore = lambda scope: None

runs_here = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="run by test_in_the_interpreter.py")
