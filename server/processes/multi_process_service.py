"""NVIDIA's Multi-Process Service: processes that share a GPU run on it at once, not by turns.

The daemon is one of this user, with directories of its own; no setting of the GPU is changed.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

DAEMON = "nvidia-cuda-mps-control"
DRIVERS_FOLDER = "/usr/local/nvidia/bin"  # where some containers have what comes with the driver
DRIVER = Path("/dev/nvidiactl")
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
USERS_PIPES = Path("/tmp/nvidia-mps")  # where clients look for a daemon if the variable is not set
SECONDS_TO_START, SECONDS_TO_ANSWER, SECONDS_TO_PROBE = 60.0, 30.0, 10.0


class NoDaemon(Exception):
    """The service can't be started; the message says why."""


@dataclass(frozen=True)
class Service:
    """A daemon that runs."""

    variables: Mapping[str, str]  # by which processes use it
    _command: str
    _environment: Mapping[str, str]

    def in_use(self) -> bool:
        """Whether a process does: one that can't reach the daemon goes on without it, and says nothing."""
        try:
            asked = subprocess.run(
                [self._command],
                env=self._environment,
                input="get_server_list\n",
                stdout=subprocess.PIPE,
                text=True,
                timeout=SECONDS_TO_ANSWER,
            )
        except subprocess.TimeoutExpired:
            return False
        return any(line.strip().isdigit() for line in asked.stdout.splitlines())

    def takes_clients(self) -> bool:
        """Whether a process could begin to use the GPU by it now. After one has died it needs a moment."""
        command = [sys.executable, "-m", "server.processes.gpu_probe"]
        try:
            tried = subprocess.run(
                command, env={**os.environ, **self.variables}, capture_output=True, timeout=SECONDS_TO_PROBE
            )
        except subprocess.TimeoutExpired:
            return False
        return tried.returncode == 0 and self.in_use()  # without a daemon, a process would begin, too


@contextmanager
def multi_process_service(directory: Path) -> Iterator[Service]:
    """The service, for the processes that are started meanwhile with its variables; `directory` is for its sockets.

    The daemon ends with this process, however that ends.

    Raises:
        NoDaemon: it is not installed, or did not start.
    """
    command = shutil.which(DAEMON, path=os.pathsep.join([os.environ.get("PATH", ""), DRIVERS_FOLDER]))
    if command is None:
        raise NoDaemon(
            f"{DAEMON} is neither on PATH nor in {DRIVERS_FOLDER}: it comes with NVIDIA's driver, in a container with"
            " the capability `utility`"
        )
    pipes, logs = directory / "mps", directory / "mps-log"
    for folder in (pipes, logs):
        folder.mkdir()
    variables = {PIPES: str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
    environment = {**os.environ, **variables}
    environment["PATH"] += f"{os.pathsep}{Path(command).parent}"  # its server is beside it
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # it would number the GPUs anew for its clients
    # It returns when it listens. What it says goes to a file, as the daemon keeps open what it is given.
    with (logs / "start").open("w+") as said:
        try:
            status = subprocess.run(
                [command, "-d"], env=environment, stdout=said, stderr=said, timeout=SECONDS_TO_START
            ).returncode
        except subprocess.TimeoutExpired:
            raise NoDaemon(f"{command} -d has not returned within {SECONDS_TO_START:.0f} s") from None
        said.seek(0)
        if status:
            raise NoDaemon(f"{command} -d ended with status {status}: {said.read().strip()}")
    # The daemon outlives whoever started it, so a shell waits for this process's end of a pipe to close.
    ending = subprocess.Popen(
        ["sh", "-c", 'cat; echo quit | "$0"', command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield Service(variables, command, environment)
    finally:
        assert ending.stdin is not None
        ending.stdin.close()
        try:
            ending.wait(SECONDS_TO_ANSWER)
        except subprocess.TimeoutExpired:
            log.warning("%s has not ended yet.", DAEMON)


@contextmanager
def service_if_possible(directory: Path) -> Iterator[Service | None]:
    """The service, unless the user has a daemon already, or this machine can't have one: then the log says why not."""
    with ExitStack() as stack:
        service = None
        if not _users_daemon():
            try:
                service = stack.enter_context(multi_process_service(directory))
            except NoDaemon as reason:
                if DRIVER.exists():
                    log.info("Processes take turns on the GPU, without the Multi-Process Service: %s.", reason)
        yield service


def _users_daemon() -> bool:
    if PIPES in os.environ:
        return True
    try:
        return Path("/proc", (USERS_PIPES / f"{DAEMON}.pid").read_text().strip()).exists()
    except OSError:
        return False
