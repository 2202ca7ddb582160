"""Compares the server of another checkout with this one's, on one machine and in turns.

    git worktree add /tmp/old COMMIT
    python -m benchmarks.compare /tmp/old --serve "--model_dir models/full" --concurrency 1,64 --runs 3

Each run starts both servers, one after the other, and every second run in the other order. The load is that of
`benchmarks.serve`, from this checkout for both. A ratio is the new figure divided by the old one of the same run.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.load import Setting
from benchmarks.serve import load_flags, measure, parse, started
from benchmarks.serve_report import Figures, Report, mode
from benchmarks.table import spread, table

FIGURES: dict[str, Callable[[Figures], float | None]] = {
    "first audio p50": lambda row: row.first_audio[0],
    "first audio p99": lambda row: row.first_audio[2],
    "a-s/s": lambda row: row.audio_rate,
}


def main() -> int:
    """Measure both and print a table for each and one of ratios; return 1 if any request failed."""
    arguments = _arguments()
    checkouts = {"old": arguments.checkout, "new": Path(__file__).parents[1]}
    reports: dict[str, list[Report]] = {name: [] for name in checkouts}
    for run in range(arguments.runs):
        for name in checkouts if run % 2 == 0 else reversed(checkouts):
            print(f"run {run + 1}, {name}: {checkouts[name]}", flush=True)
            with started(arguments.serve, arguments.voice, checkouts[name]) as running:
                reports[name].append(measure(running, arguments, runs=1))
    old, new = (
        Report(found[-1].conditions, [run for report in found for run in report.runs]) for found in reports.values()
    )
    print("", "old", old.text(), "", "new", new.text(), "", "new / old", ratios(old, new), sep="\n")
    return int(old.failed or new.failed)


def ratios(old: Report, new: Report) -> str:
    """Format new / old of each setting: the mean of the runs that both have, and its range."""
    pairs: dict[Setting, list[tuple[Figures, Figures]]] = {}
    for run_of_old, run_of_new in zip(old.runs, new.runs, strict=True):
        before = {row.setting: row for row in run_of_old}
        for row in run_of_new:
            if row.setting in before:
                pairs.setdefault(row.setting, []).append((before[row.setting], row))
    rows = [
        [setting.kind, f"{setting.size:g}", mode(setting.streaming)]
        + [spread([_ratio(read(a), read(b)) for a, b in runs], ".2f") for read in FIGURES.values()]
        for setting, runs in pairs.items()
    ]
    return table(["load", "size", "mode", *FIGURES], rows)


def _ratio(old: float | None, new: float | None) -> float | None:
    return new / old if new is not None and old else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compares the server of another checkout with this one's, in turns.",
        parents=[load_flags()],
    )
    parser.add_argument("checkout", type=Path, help="directory of the other checkout, as of `git worktree add`")
    parser.add_argument("--serve", metavar="FLAGS", default="", help="flags of both servers")
    parser.add_argument("--runs", type=int, default=1, help="how often both are measured, for the spread")
    arguments = parse(parser)
    if not (arguments.checkout / "server" / "__main__.py").exists():
        parser.error(
            f"{arguments.checkout} has no server/__main__.py; give the directory of a checkout of this project"
        )
    return arguments


if __name__ == "__main__":
    sys.exit(main())
