"""Names that stand for voices: callers of OpenAI's speech API ask for voices that only OpenAI has."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

VOICE_ALIASES: Mapping[str, str] = {
    **dict.fromkeys(("alloy", "coral", "marin", "nova", "sage", "shimmer"), "slt"),
    **dict.fromkeys(("ash", "cedar", "echo", "onyx", "verse"), "rms"),
    **dict.fromkeys(("ballad", "fable"), "awb"),
}


def read_aliases(path: str) -> dict[str, str]:
    """`VOICE_ALIASES` with the changes in a JSON file, {alias: voice}. Raises argparse.ArgumentTypeError."""
    try:
        aliases = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path!r} can't be read ({error})") from error
    if not isinstance(aliases, dict) or not all(isinstance(voice, str) for voice in aliases.values()):
        raise argparse.ArgumentTypeError(f'{path!r} is not a JSON object of voices\' names, like {{"nova": "Anna"}}')
    return {**VOICE_ALIASES, **aliases}
