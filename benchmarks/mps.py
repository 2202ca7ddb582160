"""NVIDIA's Multi-Process Service for a while: processes that share a GPU run on it at once, not by turns.

The daemon is one of this user with directories of its own; no setting of the GPU is changed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DAEMON = "nvidia-cuda-mps-control"
DRIVERS_FOLDER = "/usr/local/nvidia/bin"  # where containers have what comes with the driver
SECONDS_TO_ANSWER = 30.0


class NoDaemon(Exception):
    """The service can't be started; the message says why."""


@dataclass(frozen=True)
class Service:
    """A daemon that runs."""

    variables: dict[str, str]  # by which processes use it
    _command: str
    _environment: dict[str, str]

    def in_use(self) -> bool:
        """Whether a process does: one that can't reach the daemon goes on without it, and says nothing."""
        return any(line.strip().isdigit() for line in self.tell("get_server_list").splitlines())

    def tell(self, order: str) -> str:
        """Its answer."""
        return subprocess.run(
            [self._command],
            env=self._environment,
            input=f"{order}\n",
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS_TO_ANSWER,
            check=True,
        ).stdout


@contextmanager
def multi_process_service() -> Iterator[Service]:
    """The service, for the processes that are started meanwhile with its variables.

    Raises:
        NoDaemon: it is not installed, or did not start.
    """
    command = shutil.which(DAEMON, path=os.pathsep.join([os.environ.get("PATH", ""), DRIVERS_FOLDER]))
    if command is None:
        raise NoDaemon(
            f"{DAEMON} is neither on PATH nor in {DRIVERS_FOLDER}: it comes with NVIDIA's driver, in a container with"
            " the capability `utility`"
        )
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as directory:
        pipes, logs = Path(directory) / "pipe", Path(directory) / "log"
        for folder in (pipes, logs):
            folder.mkdir()
        variables = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
        environment = {**os.environ, **variables}
        environment["PATH"] += f"{os.pathsep}{Path(command).parent}"  # its server is beside it
        environment.pop("CUDA_VISIBLE_DEVICES", None)  # it would number the GPUs anew for its clients
        # It returns when it listens. What it says goes to a file, as the daemon keeps open what it is given.
        with (logs / "start").open("w+") as said:
            started = subprocess.run([command, "-d"], env=environment, stdout=said, stderr=said, timeout=60)
            said.seek(0)
            if started.returncode:
                raise NoDaemon(f"{command} -d ended with status {started.returncode}: {said.read().strip()}")
        service = Service(variables, command, environment)
        try:
            yield service
        finally:
            try:
                service.tell("quit")
            except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
                os.kill(int((pipes / f"{DAEMON}.pid").read_text()), signal.SIGKILL)
