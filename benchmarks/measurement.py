"""Shared code of the benchmarks of single stages: flags, timing, and output of results."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks import model
from benchmarks.table import UNKNOWN, spread, table

SECONDS = 0.3  # to time a call
FEWEST, MOST = 3, 30  # calls
COLUMNS = ("stage", "case", "ms", "a-s/s", "attainable ms", "attained %", "notes")


@dataclass(frozen=True)
class Measurement:
    """One case of a stage in one run."""

    stage: str
    case: str
    ms: float
    audio: float = 0.0  # seconds generated in that time
    attainable_ms: float | None = None  # see `roofline`
    notes: str = ""

    @property
    def audio_rate(self) -> float | None:
        """Seconds of audio per second."""
        return 1000 * self.audio / self.ms if self.audio else None

    @property
    def attained(self) -> float | None:
        """Percentage of the attainable speed."""
        return 100 * self.attainable_ms / self.ms if self.attainable_ms else None


def parser(description: str | None, *, batches: bool = True) -> argparse.ArgumentParser:
    """The flags of a benchmark of one stage; with `batches`, also batch sizes and lengths."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    model.add_arguments(flags)
    if batches:
        flags.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="utterances per call")
        flags.add_argument("--tokens", type=int, nargs="+", default=[25, 250], help="speech tokens of each (25: 1 s)")
    flags.add_argument("--runs", type=int, default=1, help="number of runs, for the spread")
    flags.add_argument("--json", type=Path, help="file for the results")
    return flags


def report(measure: Callable[[], Iterable[Measurement]], arguments: argparse.Namespace) -> None:
    """Measure `runs` times, print and write each result at once, and print a table at the end."""
    measurements = []
    for _ in range(arguments.runs):
        for measurement in measure():
            measurements.append(measurement)
            print("; ".join(cell for cell in _cells([measurement]) if cell), flush=True)
            if arguments.json:
                write(arguments.json, measurements)
    print(show(measurements))


def write(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write results as JSON, see `read`."""
    path.write_text(json.dumps([asdict(measurement) for measurement in measurements], indent=1))


def read(path: Path) -> list[Measurement]:
    """Read results written by `write`."""
    return [Measurement(**fields) for fields in json.loads(path.read_text())]


def show(measurements: Iterable[Measurement]) -> str:
    """A table with one line per case, for all its runs."""
    cases: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        cases.setdefault((measurement.stage, measurement.case), []).append(measurement)
    return table(COLUMNS, [_cells(runs) for runs in cases.values()])


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], object]) -> tuple[float, float]:
    """Median time of several calls in a row, after a warm-up: on the GPU, and on the host for the launches.

    Without a GPU, both are the host's time.
    """
    if not torch.cuda.is_available():
        spent = host_milliseconds(call)
        return spent, spent
    calls = _calls(call)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]  # type: ignore[no-untyped-call]  # torch's own
    begun = time.perf_counter()
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    host = 1000 * (time.perf_counter() - begun) / calls
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in pairwise(marks)), host


def host_milliseconds(call: Callable[[], object]) -> float:
    """Median time of several calls that return when their result is on the host, after a warm-up."""
    spent = []
    for _ in range(_calls(call)):
        begun = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - begun))
    return statistics.median(spent)


def _calls(call: Callable[[], object]) -> int:
    """The number of calls that fit into `SECONDS`. Warms up with one call."""
    call()
    synchronize()
    begun = time.perf_counter()
    call()
    synchronize()
    return max(FEWEST, min(MOST, int(SECONDS / (time.perf_counter() - begun))))


def _cells(runs: Sequence[Measurement]) -> list[str]:
    last = runs[-1]
    return [
        *(last.stage, last.case, spread([run.ms for run in runs], ".2f")),
        spread([run.audio_rate for run in runs], ".0f") if last.audio else UNKNOWN,
        spread([last.attainable_ms], ".2f"),
        spread([run.attained for run in runs], ".1f"),
        last.notes,
    ]
