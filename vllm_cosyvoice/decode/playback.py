"""Computes when a listener needs the next audio."""


class Playback:
    """The playback of one utterance by its listener. All times are in seconds of one clock.

    A request's utterances are played one after another: `previous` is the one before this, if any.
    """

    def __init__(self, previous: "Playback | None" = None) -> None:
        self.is_first = previous is None  # the caller waits for its first audio; for others, earlier audio is playing
        self._previous = previous
        self._end: float | None = None  # when the delivered audio ends; None: none has been delivered
        self._to_come = 0.0  # seconds of audio whose tokens have arrived, but that has not been delivered

    def expect(self, seconds: float) -> None:
        """Add the tokens of `seconds` of audio, which have arrived."""
        self._to_come += seconds

    def play(self, now: float, seconds: float) -> None:
        """Add `seconds` of audio, which are delivered at `now`."""
        if seconds == 0.0:
            return
        runs_out = self.runs_out(now)
        self._end = max(now, now if runs_out is None else runs_out) + seconds
        self._to_come -= seconds
        self._previous = None

    def runs_out(self, now: float) -> float | None:
        """The earliest time when this utterance's next audio is needed; None: it is the first, and needed at once."""
        if self._end is not None:
            return self._end
        if self._previous is None:
            return None
        previous_end = self._previous.runs_out(now)
        return (now if previous_end is None else previous_end) + self._previous._to_come
