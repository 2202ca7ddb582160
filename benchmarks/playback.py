"""Simulates a player that starts at the first piece and plays as long as it has audio."""

from collections.abc import Iterable
from typing import NamedTuple


class Playback(NamedTuple):
    """The result of a playback, with times of the pieces' clock."""

    stalled: float  # seconds of silence between the first piece and the last
    end: float  # when the last sample has been played; minus infinity if there was none


def play(pieces: Iterable[tuple[float, float]]) -> Playback:
    """Play `pieces`, given by the arrival time and the seconds of audio of each."""
    stalled, end = 0.0, float("-inf")
    for arrival, seconds in pieces:
        if end > float("-inf"):
            stalled += max(0.0, arrival - end)
        end = max(end, arrival) + seconds
    return Playback(stalled, end)
