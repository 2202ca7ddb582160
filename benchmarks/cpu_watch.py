"""Measures the CPU cores used by the processes of a server."""

import contextlib
import time
from collections import defaultdict

import psutil

from server.processes.fork_server import TITLE


class CpuWatch:
    """Watches the server whose supervisor has the given process id; without one, it reports nothing."""

    def __init__(self, supervisor: int | None) -> None:
        self._supervisor = supervisor
        self._before = time.monotonic(), self._spent()

    def take(self) -> dict[str, float]:
        """The average number of busy cores since the last call, by kind of process."""
        now, spent = time.monotonic(), self._spent()
        (then, before), self._before = self._before, (now, spent)
        return {kind: max(0.0, seconds - before.get(kind, 0.0)) / (now - then) for kind, seconds in spent.items()}

    def _spent(self) -> dict[str, float]:
        """CPU seconds so far, by kind of process, including child processes."""
        spent: defaultdict[str, float] = defaultdict(float)
        if self._supervisor is None:
            return spent
        for child in psutil.Process(self._supervisor).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                name = child.name()
                if name.startswith(TITLE):
                    kind = name.removeprefix(TITLE).rpartition("-")[0]
                    spent[kind] += sum(_seconds(process) for process in [child, *child.children(recursive=True)])
        return spent


def _seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
