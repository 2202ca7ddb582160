"""How many CPU cores the processes of a server take."""

import contextlib
import time
from collections import defaultdict

import psutil

from server.staged.fork_server import TITLE


class CpuWatch:
    """Looks at the server whose supervisor has the given process id; where there is none, nothing is seen."""

    def __init__(self, supervisor: int | None) -> None:
        self._supervisor = supervisor
        self._before = time.monotonic(), self._spent()

    def take(self) -> dict[str, float]:
        """Cores that each kind of process kept busy on average since the last time it was asked."""
        now, spent = time.monotonic(), self._spent()
        (then, before), self._before = self._before, (now, spent)
        return {kind: max(0.0, seconds - before.get(kind, 0.0)) / (now - then) for kind, seconds in spent.items()}

    def _spent(self) -> dict[str, float]:
        """CPU seconds of each kind so far, what its processes started included."""
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
