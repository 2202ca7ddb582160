"""Times every stage alone, over batch and length, beside what the GPU could attain.

    python -m benchmarks.stages [--model_dir DIR | --size full] [--batch 1 8 …] [--tokens 25 250] [--only flow_solve …]

Flow solve, vocoder, both together (the decode stage), the language model and the features of a new voice, each in a
process of its own, so that none finds the others' memory taken. What could be attained is the longer of the time for
the arithmetic and the time for the bytes, see `benchmarks.roofline` for the formulas; it is left out on a CPU, on GPUs
whose rates we don't know and for models of other sizes than the released one.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks import measurement, parts
from benchmarks.measurement import Measurement
from benchmarks.model import model_directory
from benchmarks.roofline import Roofline
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import TOKEN_RATE, ModelConfig

STAGES = ("flow_solve", "decode", "language_model", "cold_voice", "vocoder")


def flags(stage: str, arguments: argparse.Namespace) -> list[str]:
    """What `stage` is told of batch, length and runs."""
    batch, runs = [str(count) for count in arguments.batch], arguments.runs
    match stage:
        case "language_model":  # all its requests are equally long
            return ["--concurrency", *(batch * runs), "--tokens", str(max(arguments.tokens))]
        case "cold_voice":
            return ["--runs", str(runs)]
        case _:
            return ["--batch", *batch, "--tokens", *map(str, arguments.tokens), "--runs", str(runs)]


def language_model_steps(path: Path, config: ModelConfig) -> list[Measurement]:
    """What `benchmarks.language_model` wrote, by its steps: each gives every request a token."""
    written, roofline = json.loads(path.read_text()), Roofline.here(config)
    context = written["prompt"] + written["tokens"] / 2
    return [
        Measurement(
            "language model",
            f"{figures['concurrency']} × {written['tokens']} tokens, a step",
            figures["step_ms"],
            figures["concurrency"] / TOKEN_RATE,
            roofline.language_model(figures["concurrency"], context),
            f"first token {figures['first_token_ms']:.0f} ms",
        )
        for figures in written["figures"]
    ]


def main() -> int:
    """Print all figures last; 1 if a stage failed."""
    parser = measurement.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all; what takes longer is broken off")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    found: list[Measurement] = []
    went_well = True
    with model_directory(arguments) as directory, tempfile.TemporaryDirectory() as written:
        for stage in arguments.only:
            figures = Path(written) / f"{stage}.json"
            told: list[str | Path] = [*flags(stage, arguments), "--model_dir", directory, "--json", figures]
            went_well &= parts.run(stage, *told, seconds=max(0.0, end - time.monotonic()))
            if figures.exists() and stage == "language_model":
                found += language_model_steps(figures, open_model(directory).config)
            elif figures.exists():
                found += measurement.read(figures)
            if arguments.json:
                measurement.write(arguments.json, found)
    print(measurement.show(found))
    return 0 if went_well else 1


if __name__ == "__main__":
    raise SystemExit(main())
