"""Watches a GPU's memory and load with nvidia-smi."""

import shutil
import subprocess
import threading
from types import TracebackType

QUERY = ("--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=500")


def gpus(*fields: str) -> list[str]:
    """Query `fields` of each GPU with nvidia-smi, which uses no GPU memory. Without a GPU, the list is empty."""
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


class GpuWatch:
    """A context that samples all GPUs of the machine twice per second; without nvidia-smi, it reports nothing."""

    def __init__(self) -> None:
        self._samples: list[tuple[int, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "GpuWatch":
        if command := shutil.which("nvidia-smi"):
            self._process = subprocess.Popen([command, *QUERY], stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def take(self) -> tuple[int, float] | None:
        """Since the last call: the maximum MiB in use on one GPU, and the mean percent busy of all GPUs."""
        samples, self._samples = self._samples, []
        if not samples:
            return None
        return max(memory for memory, _ in samples), sum(busy for _, busy in samples) / len(samples)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            memory, busy = line.split(",")
            self._samples.append((int(memory), float(busy)))
