"""Ending a process together with all that it started."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

PATIENCE = 5.0  # seconds for a resource tracker to clean up
PAUSE = 0.02  # seconds between looks at a dying group


def kill(group: int) -> None:
    """SIGKILL every process of `group`; returns when they are gone.

    multiprocessing's resource tracker goes last and by itself: it ends with the processes it serves, and then unlinks
    the shared memory that they had no chance to unlink.
    """
    deadline = time.monotonic() + PATIENCE
    while (members := _members(group)) and time.monotonic() < deadline:
        _kill_all(member for member in members if not _is_resource_tracker(member))
        time.sleep(PAUSE)
    _kill_all(_members(group))


def reap(group: int) -> None:
    """Take notice of the end of those of a killed `group` that were left to this process; their threads may last."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if not os.waitpid(-group, os.WNOHANG)[0]:
                time.sleep(PAUSE)


def end_own() -> None:
    """`kill` for the group this process leads, this process included."""
    own = os.getpid()
    while others := [m for m in _members(os.getpgrp()) if m.pid != own and not _is_resource_tracker(m)]:
        _kill_all(others)
        time.sleep(PAUSE)
    os.kill(own, signal.SIGKILL)


def _members(group: int) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _belongs(process, group)]


def _belongs(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _kill_all(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
