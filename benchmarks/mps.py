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
from pathlib import Path

DAEMON = "nvidia-cuda-mps-control"
DRIVERS_FOLDER = "/usr/local/nvidia/bin"  # where containers have what comes with the driver
SECONDS_TO_QUIT = 30.0


class NoDaemon(Exception):
    """The service can't be started; the message says why."""


@contextmanager
def multi_process_service() -> Iterator[dict[str, str]]:
    """Variables by which processes that are started meanwhile use the service.

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
        environment.pop("CUDA_VISIBLE_DEVICES", None)  # the daemon would number the GPUs anew for its clients
        # It returns when it listens. What it is told goes to files, as the daemon keeps whatever it is given open.
        with (logs / "start").open("w+") as said:
            started = subprocess.run([command, "-d"], env=environment, stdout=said, stderr=said, timeout=60)
            said.seek(0)
            if started.returncode:
                raise NoDaemon(f"{command} -d ended with status {started.returncode}: {said.read().strip()}")
        try:
            yield variables
        finally:
            _end(command, environment, pipes)


def _end(command: str, environment: dict[str, str], pipes: Path) -> None:
    """Its clients are gone, so it ends as it is told to."""
    try:
        subprocess.run([command], env=environment, input="quit\n", text=True, timeout=SECONDS_TO_QUIT, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        os.kill(int((pipes / f"{DAEMON}.pid").read_text()), signal.SIGKILL)
