"""Measures every stage alone, then the server, then the server without NVIDIA's Multi-Process Service.

    python -m benchmarks.everything --out DIR [--model_dir DIR | --size full] [--plan gpu] [--parts stages serve turns]

It ends within `--seconds`: each part gets its share of the remaining time, the server load skips settings when its
share is used up, and a stage that takes longer is interrupted. Results are written to DIR as JSON, text and images.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks import measurement, model, parts
from benchmarks.serve_report import Report

PARTS = {"stages": 0.35, "serve": 0.37, "turns": 0.28}  # shares of the time
SECONDS_TO_STOP = 15.0  # to stop a server and this program


@dataclass(frozen=True)
class Plan:
    """What to measure, as flags."""

    stages: str
    server: str
    load: str


PLANS = {
    "gpu": Plan(
        "--batch 1 4 8 16 64 --tokens 25 250 --runs 2",
        "--gpt_paral_num 320 --encode_paral_num 1024 --encode_process_num 4 --httpserver_workers 4"
        " --max_total_token_num 262144 --decode_paral_num 64",
        "--concurrency 1,32,64,128 --listeners 150,250 --rates 10,20 --warm_up 2 --seconds 5 --runs 2",
    ),
    # To check that all parts work, on a machine whose figures do not matter.
    "small": Plan(
        "--batch 1 2 --tokens 50",
        "--max_total_token_num 8192 --max_req_total_len 2048",
        "--concurrency 1,2 --listeners 1 --rates 1 --tokens 50 --warm_up 0.5 --seconds 2 --clients 1",
    ),
}


def run(part: str, plan: Plan, directory: Path, out: Path, seconds: float) -> bool:
    """Run one part and return whether it succeeded."""
    files: list[str | Path] = ["--json", out / f"{part}.json"]
    if part == "stages":
        flags = [*plan.stages.split(), "--seconds", f"{seconds:.0f}", "--model_dir", directory, *files]
        return parts.run("stages", *flags, seconds=seconds + parts.SECONDS_TO_END, log=out / "everything.txt")
    if find_spec("matplotlib"):
        files += ["--plot", out / f"{part}.png"]
    server = f"--model_dir {directory} --mps {part == 'serve'} {plan.server}"
    flags = ["--serve", server, *plan.load.split(), "--stop_after", f"{seconds - SECONDS_TO_STOP:.0f}", *files]
    return parts.run("serve", *flags, seconds=seconds, log=out / "everything.txt")


def tables(out: Path) -> str:
    """Format the results of all parts in `out`."""
    sections = []
    for part in PARTS:
        file = out / f"{part}.json"
        if file.exists():
            text = measurement.show(measurement.read(file)) if part == "stages" else Report.read(file).text()
            sections.append(f"== {part}\n{text}")
    return "\n\n".join(sections)


def main() -> int:
    """Run all parts and return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model.add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--plan", choices=PLANS, default="gpu", help="what to measure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=560.0, help="for all parts together")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds - SECONDS_TO_STOP
    arguments.out.mkdir(parents=True, exist_ok=True)
    succeeded = True
    with model.model_directory(arguments) as directory:
        for index, part in enumerate(arguments.parts):
            share = PARTS[part] / sum(PARTS[other] for other in arguments.parts[index:])
            seconds = share * (end - time.monotonic())
            succeeded &= run(part, PLANS[arguments.plan], directory, arguments.out, seconds)
    print("\n" + tables(arguments.out))
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
