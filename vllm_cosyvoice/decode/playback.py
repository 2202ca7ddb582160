"""When a listener needs the next audio."""


class Playback:
    """How far one utterance has been played, and when its audio runs out; all times are in seconds of one clock.

    A request's utterances are played one after the other: `previous` is the one before, if there is one.
    """

    def __init__(self, previous: "Playback | None" = None) -> None:
        self.is_first = previous is None  # the caller waits for its first audio; before others there is some to hear
        self._previous = previous
        self._end: float | None = None  # of the audio that is out; None: none of this utterance is
        self._to_come = 0.0  # seconds of audio whose tokens are there

    def expect(self, seconds: float) -> None:
        """Tokens of this much audio have come."""
        self._to_come += seconds

    def play(self, now: float, seconds: float) -> None:
        """This much audio goes out."""
        if seconds == 0.0:
            return
        runs_out = self.runs_out(now)
        self._end = max(now, now if runs_out is None else runs_out) + seconds
        self._to_come -= seconds
        self._previous = None

    def runs_out(self, now: float) -> float | None:
        """When this utterance's next audio is needed, at the earliest; None: it is the first, and needed already."""
        if self._end is not None:
            return self._end
        if self._previous is None:
            return None
        before = self._previous.runs_out(now)
        return (now if before is None else before) + self._previous._to_come
