"""Launches Triton kernels, and compiles all of them in advance.

Triton compiles a kernel for each new form, that is, for new constants or new properties of arguments that it
specialises on. This takes a second or more, and a model has about ninety forms. The compiler releases the GIL nearly
all the time, so threads share the work.
"""

import ast
import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import triton

MOST_THREADS = 16  # more would contend for the GIL
SECONDS_A_LINE = 4  # between log lines while kernels are compiled

log = logging.getLogger(__name__)

Launcher = Callable[..., None]
_launcher: ContextVar[Launcher | None] = ContextVar("kernel launcher", default=None)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:  # noqa: ANN401
    """Launch a kernel with its `arguments`, constants last, and Triton's `options`."""
    if launcher := _launcher.get():
        launcher(kernel, grid, *arguments, **options)
    else:
        kernel[grid](*arguments, **options)


@contextmanager
def diverted(launcher: Launcher) -> Iterator[None]:
    """Pass launches in this context to `launcher`, which takes the arguments of `launch`, instead of to the GPU."""
    token = _launcher.set(launcher)
    try:
        yield
    finally:
        _launcher.reset(token)


@contextmanager
def compiling() -> Iterator[None]:
    """Compile kernels that are launched in this context instead of running them. On exit, all are ready to run."""
    forms: set[Hashable] = set()

    def compile_once(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        form = kernel, *map(_form, arguments), *((name, _form(value)) for name, value in options.items())
        if form not in forms:
            forms.add(form)
            kernel.warmup(*arguments, grid=grid, **options)

    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    with _one_parser(), ThreadPoolExecutor(threads, "compile") as pool, triton.AsyncCompileMode(pool) as mode:
        with diverted(compile_once):
            yield
        kernels = pending = set(mode.raw_futures)
        while pending:
            pending = wait(pending, SECONDS_A_LINE).not_done
            log.info("Compiled %d of %d GPU kernels.", len(kernels) - len(pending), len(kernels))


@contextmanager
def _one_parser() -> Iterator[None]:
    """Serialise `ast.parse`, which is not thread-safe before Python 3.11.8 (CPython issue 106905)."""
    parse, lock = ast.parse, threading.Lock()

    def parse_alone(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        with lock:
            return parse(*arguments, **options)

    ast.parse = parse_alone
    try:
        yield
    finally:
        ast.parse = parse


def _form(argument: Hashable) -> Hashable:
    """The properties that Triton may specialise a kernel on: for a tensor, its dtype and its alignment."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16
    return argument
