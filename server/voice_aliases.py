"""Names that stand for voices: callers of OpenAI's speech API ask for voices that only OpenAI has."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from vllm_cosyvoice.config import DEFAULT_VOICE

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
VOICE_ALIASES: Mapping[str, str] = dict.fromkeys(OPENAI_VOICES, DEFAULT_VOICE)


def read_aliases(path: str) -> dict[str, str]:
    """`VOICE_ALIASES` with the changes in a JSON file, {alias: voice}. Raises argparse.ArgumentTypeError."""
    try:
        aliases = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path!r} can't be read ({error})") from error
    if not isinstance(aliases, dict) or not all(isinstance(voice, str) for voice in aliases.values()):
        raise argparse.ArgumentTypeError(f'{path!r} is not a JSON object of voices\' names, like {{"nova": "Anna"}}')
    return {**VOICE_ALIASES, **aliases}
