"""Runs a benchmark in a separate process, with a time limit."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SECONDS_TO_END = 30.0  # for a benchmark to stop the processes it started


def run(name: str, *flags: str | Path, seconds: float, log: Path | None = None) -> bool:
    """Run `python -m benchmarks.NAME FLAGS`, print its output and append it to `log`.

    After `seconds` it is interrupted, as by Ctrl-C, and after another `SECONDS_TO_END` it is killed. Returns whether
    it succeeded.
    """
    print(f"\n== {name} {' '.join(map(str, flags))}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, flags)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    timers = [
        threading.Timer(wait, _signal, (process.pid, number))
        for wait, number in ((seconds, signal.SIGINT), (seconds + SECONDS_TO_END, signal.SIGKILL))
    ]
    for timer in timers:
        timer.start()
    assert process.stdout is not None
    try:
        with process.stdout, Path(log or os.devnull).open("a") as file:
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
        process.wait()
    except KeyboardInterrupt:
        _signal(process.pid, signal.SIGINT)
        process.wait(SECONDS_TO_END)
        raise
    finally:
        for timer in timers:
            timer.cancel()
    if process.returncode:
        print(f"== {name} ended with status {process.returncode}", flush=True)
    return process.returncode == 0


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
