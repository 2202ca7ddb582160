"""Aliases of voices: clients of the OpenAI speech API ask for voices that only OpenAI has."""

from collections.abc import Mapping

from server.word_table import read_word_table

VOICE_ALIASES: Mapping[str, str] = {
    **dict.fromkeys(("alloy", "coral", "marin", "nova", "sage", "shimmer"), "slt"),
    **dict.fromkeys(("ash", "cedar", "echo", "onyx", "verse"), "rms"),
    **dict.fromkeys(("ballad", "fable"), "awb"),
}


def read_aliases(path: str) -> dict[str, str]:
    """Return `VOICE_ALIASES` updated from a JSON file, {alias: voice}. Raises argparse.ArgumentTypeError."""
    return {**VOICE_ALIASES, **read_word_table(path)}
