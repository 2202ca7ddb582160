"""Times every stage alone, over batch size and length, compared with the attainable speed of the GPU.

    python -m benchmarks.stages [--model_dir DIR | --size full] [--batch 1 8 …] [--tokens 25 250] [--only flow_solve …]

The stages are the flow solve, the vocoder, both together (the decode stage), the language model and the features of a
new voice. Each runs in a separate process, so that none occupies memory of the others. The attainable time is the
longer of the times for the arithmetic and for the bytes, see `benchmarks.roofline`. It is omitted on a CPU, on GPUs of
unknown speed and for models of other sizes than the released one.
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
    """The flags of `stage` for batch sizes, lengths and runs."""
    batch, runs = [str(count) for count in arguments.batch], arguments.runs
    match stage:
        case "language_model":  # its requests have equal length
            return ["--concurrency", *(batch * runs), "--tokens", str(max(arguments.tokens))]
        case "cold_voice":
            return ["--runs", str(runs)]
        case _:
            return ["--batch", *batch, "--tokens", *map(str, arguments.tokens), "--runs", str(runs)]


def language_model_steps(path: Path, config: ModelConfig) -> list[Measurement]:
    """Read the results of `benchmarks.language_model` as times of a step, which gives every request a token."""
    results, roofline = json.loads(path.read_text()), Roofline.here(config)
    context = results["prompt"] + results["tokens"] / 2
    return [
        Measurement(
            "language model",
            f"{figures['concurrency']} × {results['tokens']} tokens, a step",
            figures["step_ms"],
            figures["concurrency"] / TOKEN_RATE,
            roofline.language_model(figures["concurrency"], context),
            f"first token {figures['first_token_ms']:.0f} ms",
        )
        for figures in results["figures"]
    ]


def main() -> int:
    """Run all stages and print the results at the end; return 1 if a stage failed."""
    parser = measurement.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--seconds", type=float, default=3600.0, help="time limit for all stages together")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    measurements: list[Measurement] = []
    succeeded = True
    with model_directory(arguments) as directory, tempfile.TemporaryDirectory() as results:
        for stage in arguments.only:
            file = Path(results) / f"{stage}.json"
            stage_flags: list[str | Path] = [*flags(stage, arguments), "--model_dir", directory, "--json", file]
            succeeded &= parts.run(stage, *stage_flags, seconds=max(0.0, end - time.monotonic()))
            if file.exists() and stage == "language_model":
                measurements += language_model_steps(file, open_model(directory).config)
            elif file.exists():
                measurements += measurement.read(file)
            if arguments.json:
                measurement.write(arguments.json, measurements)
    print(measurement.show(measurements))
    return 0 if succeeded else 1


if __name__ == "__main__":
    raise SystemExit(main())
