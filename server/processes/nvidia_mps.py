"""NVIDIA's Multi-Process Service (MPS): processes that share a GPU run on it at the same time, not in turns.

The daemon runs as this user with its own directories. No setting of the GPU is changed.
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
DRIVERS_FOLDER = "/usr/local/nvidia/bin"  # the driver's programs, in some containers
DRIVER = Path("/dev/nvidiactl")
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
USERS_PIPES = Path("/tmp/nvidia-mps")  # where clients look for a daemon by default
SECONDS_TO_START, SECONDS_TO_ANSWER, SECONDS_TO_PROBE = 60.0, 30.0, 10.0


class NoDaemon(Exception):
    """MPS can't be started; the message says why."""


@dataclass(frozen=True)
class Service:
    """A running daemon."""

    variables: Mapping[str, str]  # a process that has them uses the daemon
    _command: str
    _environment: Mapping[str, str]

    def in_use(self) -> bool:
        """Whether a process uses it. One that can't reach the daemon runs without it and reports nothing."""
        try:
            answer = subprocess.run(
                [self._command],
                env=self._environment,
                input="get_server_list\n",
                stdout=subprocess.PIPE,
                text=True,
                timeout=SECONDS_TO_ANSWER,
            )
        except subprocess.TimeoutExpired:
            return False
        return any(line.strip().isdigit() for line in answer.stdout.splitlines())

    def takes_clients(self, variables: Mapping[str, str]) -> bool:
        """Whether a new process with these `variables` can use its GPU now. After a client dies, MPS needs a moment."""
        command = [sys.executable, "-m", "server.processes.gpu_probe"]
        try:
            probe = subprocess.run(
                command, env={**os.environ, **variables}, capture_output=True, timeout=SECONDS_TO_PROBE
            )
        except subprocess.TimeoutExpired:
            return False
        return probe.returncode == 0 and self.in_use()  # the probe also succeeds without a daemon


@contextmanager
def multi_process_service(directory: Path) -> Iterator[Service]:
    """Run a daemon with its sockets in `directory`, for processes that are started with its variables.

    The daemon ends with this process, even if that is killed.

    Raises:
        NoDaemon: MPS is not installed, or did not start.
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
    environment["PATH"] += f"{os.pathsep}{Path(command).parent}"  # its server program is in the same folder
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # MPS would renumber the GPUs for its clients
    # The command returns once the daemon listens. Its output goes to a file, because the daemon keeps it open.
    with (logs / "start").open("w+") as output:
        try:
            status = subprocess.run(
                [command, "-d"], env=environment, stdout=output, stderr=output, timeout=SECONDS_TO_START
            ).returncode
        except subprocess.TimeoutExpired:
            raise NoDaemon(f"{command} -d has not returned within {SECONDS_TO_START:.0f} s") from None
        output.seek(0)
        if status:
            raise NoDaemon(f"{command} -d ended with status {status}: {output.read().strip()}")
    # The daemon outlives its parent. So a shell stops it when this process's end of a pipe closes.
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
    """Run MPS if this machine can, or log why not. A daemon that the user has started is left alone."""
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
