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
    parser.add_argument("--family", choices=["cosyvoice2", "cosyvoice3"], default="cosyvoice2")
    parser.add_argument("--size", choices=["tiny", "full"], default="tiny", help="tiny, or the released sizes (3 GB)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", type=Path, help="the directory to create")
    arguments = parser.parse_args()
    try:
        write_random_checkpoint(arguments.out, SIZES[arguments.family, arguments.size], seed=arguments.seed)
    except CheckpointError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
