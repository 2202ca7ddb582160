"""When to decode which streams: by the moments at which their listeners run out of audio."""

import math
from collections.abc import Sequence
from typing import NamedTuple

SHORT_CALL = 0.08  # seconds to which a call is filled up while anybody listens: what gets urgent may wait for so long
LONG_CALL = 0.15  # seconds of a call of what is urgent, or while nobody listens: rows share what each call costs
MARGIN = 0.2  # seconds between audio and its deadline: for a call under way, and for the way to the listener
HEAD_START = 5.0  # seconds that a listener may have stalled for before that counts more than another's first audio
FIRST_HOP_CALLS = 6  # that a first hop's audio lasts for: while it is heard, a chunk more must come and be decoded
PATIENCE = 2.0  # seconds that an utterance nobody listens to may be put off when all of it is there
MEMORY = 0.9  # what a call counts in the cost estimate when the next one has been made


class Listener:
    """What one segment's listener has heard and when that ends; all times are in seconds of one clock.

    A request's segments are heard one after the other: `previous` is the one before, if there is one.
    """

    def __init__(self, previous: "Listener | None" = None) -> None:
        self.waits = previous is None  # for the first audio; others still have something to hear until it comes
        self._previous = previous
        self._heard_until: float | None = None  # None: nothing of this segment is out
        self._to_come = 0.0  # seconds of audio whose tokens are there

    def expect(self, seconds: float) -> None:
        """Tokens of so much audio have come."""
        self._to_come += seconds

    def hear(self, now: float, seconds: float) -> None:
        """So much audio goes out."""
        if seconds == 0.0:
            return
        dry = self.dry(now)
        self._heard_until = max(now, now if dry is None else dry) + seconds
        self._to_come -= seconds
        self._previous = None

    def dry(self, now: float) -> float | None:
        """When this segment's next audio is needed, at the earliest; None: it is the first, waited for already."""
        if self._heard_until is not None:
            return self._heard_until
        if self._previous is None:
            return None
        before = self._previous.dry(now)
        return (now if before is None else before) + self._previous._to_come


class CostEstimate:
    """What a decode call takes: a constant and so much a frame, fitted to the last calls."""

    def __init__(self) -> None:
        self._count = self._frames = self._seconds = self._squares = self._products = 0.0

    def learn(self, frames: int, seconds: float) -> None:
        """A call that computed so many frames has taken so long."""
        self._count = MEMORY * self._count + 1
        self._frames = MEMORY * self._frames + frames
        self._seconds = MEMORY * self._seconds + seconds
        self._squares = MEMORY * self._squares + frames * frames
        self._products = MEMORY * self._products + frames * seconds

    @property
    def usual(self) -> float:
        """Seconds of the last calls, on average; infinite before anything is known."""
        return self._seconds / self._count if self._count else math.inf

    def seconds(self, frames: int) -> float:
        """What a call of so many frames will take; 0 before anything is known."""
        if not self._frames:
            return 0.0
        per_frame = self._seconds / self._frames
        spread = self._squares / self._count - (self._frames / self._count) ** 2
        if spread > 0:
            slope = (self._products - self._frames * self._seconds / self._count) / self._count / spread
            per_frame = min(max(slope, 0.0), per_frame)  # neither part of the cost is negative
        return max(0.0, self._seconds - per_frame * self._frames) / self._count + per_frame * frames


class Job(NamedTuple):
    """One stream that could be decoded now."""

    due: float  # when its audio is needed
    frames: int  # to compute
    last: bool  # it would be decoded to its end, so to wait longer would save nothing


def due(now: float, ready_since: float, listener: Listener | None) -> float:
    """When a stream that could be decoded since `ready_since` is due; without a listener it is wanted as a whole.

    First audio is overdue at once, so that it goes before all that is in time, and before most that is late.
    """
    if listener is None:
        return ready_since + PATIENCE
    dry = listener.dry(now)
    return ready_since - HEAD_START if dry is None else dry


class Plan(NamedTuple):
    """What to do now."""

    batch: list[int]  # the jobs of one decode call
    look_again: float | None  # if there is nothing to do: when there will be, should nothing change


def plan(now: float, jobs: Sequence[Job], cost: CostEstimate, max_rows: int, *, listened_to: bool) -> Plan:
    """The decode call to make now, of at most `max_rows` jobs; `listened_to`: some stream is, ready or not.

    Urgent jobs are taken in the order of their deadlines, so nothing that comes later can put one off for ever. Others
    wait for more tokens, as their hop recomputes those before it; but those that end their streams fill up a call.
    """
    starts = [job.due - MARGIN - cost.seconds(job.frames) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda index: jobs[index].due)
    able = [(index, LONG_CALL) for index in order if starts[index] <= now]
    filled_up = SHORT_CALL if listened_to else LONG_CALL
    able += [(index, filled_up) for index in order if starts[index] > now and jobs[index].last]
    batch: list[int] = []
    frames = 0
    for index, longest_call in able:
        fits = len(batch) < max_rows and cost.seconds(frames + jobs[index].frames) <= longest_call
        if fits or not batch:
            batch.append(index)
            frames += jobs[index].frames
    return Plan(batch, None if batch else min(starts, default=None))
