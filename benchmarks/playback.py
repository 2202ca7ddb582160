"""What a listener hears whose player starts at the first piece and plays on as long as it has audio."""

from collections.abc import Iterable
from typing import NamedTuple


class Playback(NamedTuple):
    """Times are of the pieces' clock."""

    stalled: float  # seconds of silence between the first piece and the last
    end: float  # when the last sample has been played; minus infinity if there was none


def play(pieces: Iterable[tuple[float, float]]) -> Playback:
    """Play `pieces`: when each was there, and the seconds of audio in it."""
    stalled, dry = 0.0, float("-inf")
    for there, seconds in pieces:
        if dry > float("-inf"):
            stalled += max(0.0, there - dry)
        dry = max(dry, there) + seconds
    return Playback(stalled, dry)
