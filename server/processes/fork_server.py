"""Forks the server's processes from one that has done their imports, which are most of the start-up time.

Each stage is forked twice. The intermediate process ends at once, and the supervisor, which adopts orphans, becomes the
parent of the stage. So stages survive the death of the fork server, and the next fork starts a new fork server.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence

import msgspec
from setproctitle import setproctitle

from vllm_cosyvoice.llm.environment import BEFORE_IMPORT, THREADS

COMMAND = (sys.executable, "-m", "server.processes.fork_server")  # its stdin is the socket for orders
TITLE = "server.stages "  # shown by `ps` before the name of a stage
SECONDS_TO_IMPORT = 600.0
LONGEST_ORDER = 1 << 20  # bytes
MOST_FILES = 2
PR_SET_CHILD_SUBREAPER = 36


class Order(msgspec.Struct, frozen=True):
    """What to fork. The file descriptors of its stdin and, for an HTTP worker, of the listening socket come with it."""

    module: str  # of the stage, see `server.processes.process`
    name: str
    environment: dict[str, str]  # in addition to that of the fork server


class ForkError(Exception):
    """Forking failed."""


class ForkedProcess:
    """A stage, seen from its adoptive parent."""

    def __init__(self, pid: int, stdin: int) -> None:
        self.pid = pid
        self.returncode: int | None = None  # negative: the signal that ended it
        self._stdin = stdin
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        threading.Thread(target=self._wait, name=f"wait for {pid}", daemon=True).start()

    def tell(self, line: bytes) -> None:
        """Write a line to its stdin, which stays open as long as it lives."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended
            os.write(self._stdin, line)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    async def wait(self) -> int:
        """Wait until it ends; returns its exit status."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end, os.waitstatus_to_exitcode(status))

    def _end(self, returncode: int) -> None:
        self.returncode = returncode
        os.close(self._stdin)
        self._ended.set()


class ForkServer:
    """The supervisor's handle of the fork server. Starts it when first needed, and again if it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._lock = asyncio.Lock()  # one order at a time
        self._closed = False
        _adopt_orphans()

    async def fork(self, order: Order, listener: int | None = None) -> ForkedProcess:
        """Fork a process that runs the stage of `order`; `listener`: the file descriptor of a socket to pass to it.

        The first fork for a module takes as long as its imports.

        Raises:
            ForkError: the fork server died twice during the fork, or the imports took too long.
        """
        async with self._lock:
            return ForkedProcess(*await asyncio.to_thread(self._fork, order, listener))

    def close(self) -> None:
        """Kill the fork server. Its stages go on."""
        self._closed = True
        self._end()

    def _fork(self, order: Order, listener: int | None) -> tuple[int, int]:
        """Return the id of a new process, and the write end of its stdin."""
        reader, writer = os.pipe()
        files = [reader] if listener is None else [reader, listener]
        try:
            for _ in range(2):
                if pid := self._ask(order, files):
                    return pid, writer
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        os.close(writer)
        raise ForkError("the fork server died twice during the fork")

    def _ask(self, order: Order, files: Sequence[int]) -> int:
        """Return the id of a new process; 0 if the fork server has died."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._orders is not None
        try:
            socket.send_fds(self._orders, [msgspec.json.encode(order)], files)
            if answer := self._orders.recv(LONGEST_ORDER):
                return int(answer)
        except TimeoutError:
            self._end()
            raise ForkError(f"its imports took more than {SECONDS_TO_IMPORT:.0f} s") from None
        except OSError:
            pass
        self._end()
        return 0

    def _start(self) -> None:
        if self._closed:
            raise ForkError("the server is stopping")
        self._orders, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(SECONDS_TO_IMPORT)
        environment = {"OMP_NUM_THREADS": str(THREADS), "VLLM_LOGGING_LEVEL": "ERROR"} | os.environ | BEFORE_IMPORT
        # Makes PyTorch query the GPUs through NVML. Once a process has initialised CUDA, its forks can't use a GPU.
        environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        with peer:
            self._process = subprocess.Popen(COMMAND, stdin=peer.fileno(), env=environment, start_new_session=True)

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


def _adopt_orphans() -> None:
    """Make this process, not init, the parent of the orphans of its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def main() -> None:
    """Serve orders until the supervisor closes its end of the socket; in a fork, run the stage."""
    orders = socket.socket(fileno=os.dup(0))
    while True:
        data, files, _, _ = socket.recv_fds(orders, LONGEST_ORDER, MOST_FILES)
        if not data:
            return
        order = msgspec.json.decode(data, type=Order)
        with contextlib.suppress(Exception):  # the stage imports it again and reports the error
            importlib.import_module(order.module)
        gc.collect()
        gc.freeze()  # otherwise garbage collection would write to, and so copy, the memory that forks share
        pid = _fork_orphan()
        if pid == 0:
            break
        for file in files:
            os.close(file)
        orders.send(str(pid).encode())
    orders.close()
    stdin, *listeners = files
    os.dup2(stdin, 0)
    os.close(stdin)
    _become(order, listeners[0] if listeners else None)


def _fork_orphan() -> int:
    """Like `os.fork`, but the new process leads its own session and is an orphan."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns about threads. The threads here are idle ones of native libraries, which forks don't need.
        warnings.simplefilter("ignore", DeprecationWarning)
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                os.write(writer, str(os.getpid()).encode())
                os.close(reader)
                os.close(writer)
                return 0
            os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 32))
    os.close(reader)
    os.wait()
    return pid


def _become(order: Order, listener: int | None) -> None:
    from server.processes.process import main as run

    os.environ.update(order.environment)
    setproctitle(TITLE + order.name)
    run(order.module, listener)


if __name__ == "__main__":
    main()
