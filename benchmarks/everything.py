"""Measures every stage alone, then the server, on one GPU; meant to take less than ten minutes.

    python -m benchmarks.everything --out DIR [--model_dir DIR] [--only stages|server]

Without a model directory it makes one with random weights of the released sizes. Figures go to DIR as JSON and text.
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from vllm_cosyvoice.random_checkpoint import FULL, write_random_checkpoint

SERVER = (
    "--gpt_paral_num 320 --encode_paral_num 1024 --encode_process_num 4 --httpserver_workers 4"
    " --max_total_token_num 262144 --decode_paral_num 64"
)
LOAD = "--concurrency 1,32,64,128 --listeners 100,150,250 --warm_up 3 --seconds 8"


def run(name: str, out: Path, *flags: str) -> bool:
    """Run a benchmark, its output on the screen and in `out`; returns whether it went well."""
    print(f"\n== {name} ==", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags, "--json", str(out / f"{name}.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with (out / f"{name}.txt").open("w") as file:
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
    return process.returncode == 0


def main() -> int:
    """1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model_dir", type=Path)
    parser.add_argument("--only", choices=["stages", "server"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        model_dir = arguments.model_dir
        if model_dir is None:
            model_dir = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "full"
            write_random_checkpoint(model_dir, FULL, seed=0)
        model = ["--model_dir", str(model_dir)]
        went_well = []
        if arguments.only != "server":
            went_well += [run("flow_solve", arguments.out), run("vocoder", arguments.out)]
            went_well += [run("decode", arguments.out, *model), run("language_model", arguments.out, *model)]
        if arguments.only != "stages":
            went_well.append(run("serve", arguments.out, "--serve", " ".join([*model, SERVER]), *LOAD.split()))
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main())
