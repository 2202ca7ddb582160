"""Parses pauses in a text: `[pause:1.5s]`, `[pause:500ms]` and SSML's `<break time="1.5s"/>`."""

import re
from dataclasses import dataclass

from vllm_cosyvoice.limits import LONGEST_PAUSE, MOST_SILENCE

PAUSE = re.compile(r"\[pause\b(?P<own>[^\[\]]*)\]|<break\b(?P<ssml>[^<>]*)>|</break\s*>", re.IGNORECASE)
TIME_ATTRIBUTE = re.compile(r"""\btime\s*=\s*["'“”]?\s*(?P<time>[^"'“”/\s]*)""", re.IGNORECASE)
TIME = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>ms|s)", re.IGNORECASE)


@dataclass(frozen=True)
class Pause:
    """Silence between two pieces of text."""

    seconds: float


def split_at_pauses(text: str) -> list[str | Pause]:
    """Split `text` at its pauses and return texts and pauses in order. A `<break>` without a time is removed.

    Raises ValueError for a pause that is invalid or longer than `LONGEST_PAUSE`, and for more than `MOST_SILENCE` in
    total.
    """
    pieces: list[str | Pause] = [""]
    start = 0
    for match in PAUSE.finditer(text):
        pieces[-1] = f"{pieces[-1]}{text[start : match.start()]}"
        start = match.end()
        if (time := _time(match)) is None:
            pieces[-1] = f"{pieces[-1]} "
        else:
            pieces += [Pause(_seconds(time, match.group())), ""]
    pieces[-1] = f"{pieces[-1]}{text[start:]}"
    if sum(piece.seconds for piece in pieces if isinstance(piece, Pause)) > MOST_SILENCE:
        raise ValueError(f"The pauses of the text are too long: at most {MOST_SILENCE:g} s in total.")
    return pieces


def _time(match: re.Match[str]) -> str | None:
    if match["own"] is not None:
        return match["own"].removeprefix(":").strip()
    attribute = TIME_ATTRIBUTE.search(match["ssml"] or "")
    return attribute["time"] if attribute else None


def _seconds(time: str, written: str) -> float:
    match = TIME.fullmatch(time)
    if match is None:
        raise ValueError(f"The pause {written!r} can't be read: write it as [pause:1.5s] or [pause:500ms].")
    seconds = float(match["number"]) * (0.001 if match["unit"].lower() == "ms" else 1)
    if seconds > LONGEST_PAUSE:
        raise ValueError(f"The pause {written!r} is too long: at most {LONGEST_PAUSE:g} s.")
    return seconds
