"""JSON files that map strings to strings."""

import argparse
import json
from pathlib import Path


def read_word_table(path: str) -> dict[str, str]:
    """Read a JSON object of strings from a file. Raises argparse.ArgumentTypeError."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path!r} can't be read ({error})") from error
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise argparse.ArgumentTypeError(f'{path!r} is not a JSON object of strings, like {{"nova": "Anna"}}')
    return table
