"""Shortens silence: the language model hears each of its silent tokens, the decoder only a few of a run."""

from collections.abc import Collection, Sequence

LONGEST_RUN = 5  # silent tokens in a row, 0.2 s


class SilenceLimit:
    """Passes the speech tokens of one segment on, but at most `LONGEST_RUN` tokens of `silent` in a row."""

    def __init__(self, silent: Collection[int]) -> None:
        self._silent = silent
        self._run = 0  # silent tokens so far, since the last that is not

    def shorten(self, tokens: Sequence[int]) -> list[int]:
        """The tokens to pass on of the segment's next `tokens`."""
        kept = []
        for token in tokens:
            self._run = self._run + 1 if token in self._silent else 0
            if self._run <= LONGEST_RUN:
                kept.append(token)
        return kept
