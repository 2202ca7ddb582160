"""The model for a benchmark: an existing directory, or random weights."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.random_checkpoint import SIZES, write_random_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that `model_directory` reads."""
    parser.add_argument("--model_dir", type=Path, help="a model directory (default: random weights)")
    parser.add_argument("--family", choices=SIZES, default="cosyvoice2", help="of the random weights")
    parser.add_argument("--size", choices=SIZES["cosyvoice2"], default="full", help="of the random weights")


@contextmanager
def model_directory(arguments: argparse.Namespace) -> Iterator[Path]:
    """The directory given by `arguments`, or a temporary one with random weights.

    Exits if the family has no model of the size.
    """
    if arguments.model_dir is not None:
        yield arguments.model_dir
        return
    sizes = SIZES[arguments.family]
    if arguments.size not in sizes:
        sys.exit(f"--size {arguments.size}: {arguments.family} has {', '.join(sizes)}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / arguments.size
        write_random_checkpoint(directory, sizes[arguments.size], seed=0)
        yield directory
