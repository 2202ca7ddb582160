"""Launches of Triton kernels, and how to compile all of them before the first.

A launch of a kernel in a new form, which is new constants or arguments that Triton specialises on, compiles it. That
takes a second or more, and a model has some ninety forms. Nearly all that time the compiler leaves Python's lock, so
threads share the work.
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

MOST_THREADS = 16  # more would wait for each other in Python's lock
SECONDS_A_LINE = 4  # of the log, while kernels are compiled

log = logging.getLogger(__name__)

Take = Callable[..., None]
_instead: ContextVar[Take | None] = ContextVar("what takes launches", default=None)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:  # noqa: ANN401
    """Launch a kernel with its `arguments`, the last of them constants, and Triton's `options`."""
    if take := _instead.get():
        take(kernel, grid, *arguments, **options)
    else:
        kernel[grid](*arguments, **options)


@contextmanager
def diverted(take: Take) -> Iterator[None]:
    """Hand launches inside to `take`, which is called as `launch`, in place of the GPU."""
    token = _instead.set(take)
    try:
        yield
    finally:
        _instead.reset(token)


@contextmanager
def compiling() -> Iterator[None]:
    """Compile kernels that are launched inside, in place of running them; at the end, all are ready to run."""
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
    """Let one thread at a time parse Python: before 3.11.8, two stumble over each other (CPython issue 106905)."""
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
    """What Triton may specialise a kernel on: of a tensor, its type and how its address is aligned."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16
    return argument
