"""The addresses of the inboxes of one run, and the cleanup after runs that were killed."""

import fcntl
import os
import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from server.processes.messages import Address


class RunDirectory:
    """A private directory for the sockets of one run, named after its server: a port, or the id of a replica.

    This process holds a lock on it as long as it lives. A directory without a lock was left behind; the next server of
    the same name removes it.
    """

    def __init__(self, parent: Path, server: int | str) -> None:
        prefix = f"cosyvoice_{server}_"
        for path in parent.glob(f"{prefix}*"):
            _remove_if_left(path)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # it belongs to another user, or no longer exists
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass  # its server is running
    finally:
        os.close(lock)


class Addresses:
    """Creates unique addresses for inboxes."""

    def __init__(self, zmq_mode: str, run_directory: Path) -> None:
        self._tcp = zmq_mode == "tcp://"
        self._run_directory = run_directory
        self._reserved: list[socket.socket] = []
        self._count = 0

    def new(self, name: str) -> Address:
        """Return an address for the inbox of a process that is about to start."""
        self._count += 1
        if not self._tcp:
            return f"ipc://{self._run_directory}/{name}.{self._count}"
        # Bound but not listening, with SO_REUSEADDR: this reserves the port, and ZeroMQ can still listen on it.
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        self._reserved.append(reserved)
        return f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
