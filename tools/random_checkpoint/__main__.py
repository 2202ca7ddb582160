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
        description="Write a CosyVoice2 model directory with random weights.",
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="tiny",
        help="tiny, tiny for CosyVoice's own code too, or the released sizes (3.1 GB)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", type=Path, help="the directory to create")
    arguments = parser.parse_args()
    try:
        write_random_checkpoint(arguments.out, SIZES[arguments.size], seed=arguments.seed)
    except CheckpointError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
