"""A GPU's memory and load while something runs, by nvidia-smi."""

import shutil
import subprocess
import threading
from types import TracebackType

QUERY = ("--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=500")


def gpus(*fields: str) -> list[str]:
    """What nvidia-smi says of each GPU, without taking any of its memory; nothing where there is none."""
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


class GpuWatch:
    """A context in which all GPUs of the machine are looked at twice a second; without nvidia-smi nothing is seen."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, float]] = []
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
        """Most MiB in use and mean percent busy, over all GPUs and since the last time it was asked."""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        return max(memory for memory, _ in seen), sum(busy for _, busy in seen) / len(seen)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            memory, busy = line.split(",")
            self._seen.append((int(memory), float(busy)))
