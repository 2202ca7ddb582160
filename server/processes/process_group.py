"""Ending a process together with all processes that it started."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

PATIENCE = 5.0  # seconds for a resource tracker to clean up
PAUSE = 0.02  # seconds between polls of a dying group


def kill(group: int) -> None:
    """Send SIGKILL to every process of `group`; returns when they have ended.

    multiprocessing's resource tracker may end last and by itself: when the processes that it serves have ended, it
    unlinks their shared memory.
    """
    deadline = time.monotonic() + PATIENCE
    while (members := _members(group)) and time.monotonic() < deadline:
        _kill_all(member for member in members if not _is_resource_tracker(member))
        time.sleep(PAUSE)
    _kill_all(_members(group))


def reap(group: int) -> None:
    """Reap the orphans of a killed `group` that this process has adopted; their threads may take time to end."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if not os.waitpid(-group, os.WNOHANG)[0]:
                time.sleep(PAUSE)


def end_own() -> None:
    """Like `kill`, for the group that this process leads, including this process."""
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
