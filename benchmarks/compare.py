"""Compares the server of another checkout with this one's, on one machine and in turns.

    git worktree add /tmp/old COMMIT
    python -m benchmarks.compare /tmp/old --serve "--model_dir /models/full" --concurrency 1,64 --runs 3

Each run starts both servers, one after the other, and every second run in the other order. The load is that of
`benchmarks.serve`, from this checkout for both. A ratio is the new figure divided by the old one of the same run.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.load import Setting
from benchmarks.serve import load_flags, measure, parse_load, started
from benchmarks.serve_report import SETTING_COLUMNS, Figures, Report
from benchmarks.table import spread, table

OLD, NEW = "old", "new"
PARTS = ("server/__main__.py", "vllm_cosyvoice/__init__.py")  # of a checkout
FIGURES: dict[str, Callable[[Figures], float | None]] = {
    "first audio p50": lambda row: row.first_audio[0],
    "first audio p99": lambda row: row.first_audio[2],
    "a-s/s": lambda row: row.audio_rate,
}


def main() -> int:
    """Measure both and print a table for each and one of ratios; return 1 if any request failed.

    If a server fails or the program is interrupted, the tables are of what was measured until then.
    """
    arguments = _arguments()
    checkouts = {OLD: arguments.checkout, NEW: Path(__file__).parents[1]}
    titles = {name: f"{name}: {checkout} ({_commit(checkout)})" for name, checkout in checkouts.items()}
    measured: dict[str, list[Report]] = {OLD: [], NEW: []}
    try:
        for run, name in turns(arguments.runs):
            print(f"run {run}, {titles[name]}", flush=True)
            with started(arguments.serve, arguments.voice, checkouts[name]) as running:
                measured[name].append(measure(running, arguments, runs=1))
    finally:
        old, new = (_joined(measured[name], titles[name]) for name in (OLD, NEW))
        print(f"\n{old.text()}\n\n{new.text()}\n\nnew / old\n{ratios(old, new)}", flush=True)
    return int(old.failed or new.failed)


def turns(runs: int) -> Iterator[tuple[int, str]]:
    """The order of the servers: the number of a run, from 1, and whose server it is."""
    for run in range(1, runs + 1):
        yield from ((run, name) for name in ((OLD, NEW) if run % 2 else (NEW, OLD)))


def ratios(old: Report, new: Report) -> str:
    """Format new / old of each setting: the mean of the runs that both have, and its range."""
    pairs: dict[Setting, list[tuple[Figures, Figures]]] = {}
    for run_of_old, run_of_new in zip(old.runs, new.runs, strict=False):  # the last run may have only one
        before = {row.setting: row for row in run_of_old}
        for row in run_of_new:
            if row.setting in before:
                pairs.setdefault(row.setting, []).append((before[row.setting], row))
    rows = [
        [show([new for _, new in runs]) for _, show in SETTING_COLUMNS]
        + [spread([_ratio(read(old), read(new)) for old, new in runs], ".2f") for read in FIGURES.values()]
        for runs in pairs.values()
    ]
    return table([*(name for name, _ in SETTING_COLUMNS), *FIGURES], rows)


def _ratio(old: float | None, new: float | None) -> float | None:
    return new / old if new is not None and old else None


def _joined(reports: list[Report], title: str) -> Report:
    """One report of several runs, with the conditions of each that differ."""
    conditions = dict.fromkeys(line for report in reports for line in report.conditions)
    return Report([title, *conditions], [run for report in reports for run in report.runs])


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no git repository"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compares the server of another checkout with this one's, in turns.",
        parents=[load_flags()],
    )
    parser.add_argument("checkout", type=Path, help="directory of the other checkout, as of `git worktree add`")
    parser.add_argument(
        "--serve",
        metavar="FLAGS",
        default="",
        help="flags of both servers; without --model_dir, each has its demo model",
    )
    arguments = parse_load(parser)
    if missing := [part for part in PARTS if not (arguments.checkout / part).exists()]:
        parser.error(f"{arguments.checkout} is not a checkout of this project: it has no {' and no '.join(missing)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
