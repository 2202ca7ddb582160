"""Command line of `python -m tools.random_checkpoint`."""

import argparse
import sys
from pathlib import Path

from tools.random_checkpoint import SIZES, write_random_checkpoint
from vllm_cosyvoice.checkpoint import CheckpointError


def main() -> None:
    """Write one model directory."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.random_checkpoint",
        description="Write a model directory with random weights.",
    )
    parser.add_argument("--family", choices=SIZES, default="cosyvoice2")
    parser.add_argument(
        "--size",
        choices=SIZES["cosyvoice2"],
        default="tiny",
        help="tiny; the smallest that CosyVoice's own code loads (CosyVoice2 only); or the released sizes (3 GB)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", type=Path, help="the directory to create")
    arguments = parser.parse_args()
    sizes = SIZES[arguments.family]
    if arguments.size not in sizes:
        parser.error(f"--size {arguments.size}: {arguments.family} has {', '.join(sizes)}")
    try:
        write_random_checkpoint(arguments.out, sizes[arguments.size], seed=arguments.seed)
    except CheckpointError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
