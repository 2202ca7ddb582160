"""When to decode which utterances: the one whose listener runs out of audio first is decoded first."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vllm_cosyvoice.decode.playback import Playback

SHORT_CALL = 0.08  # target length of a call in seconds while someone listens: an urgent utterance may wait this long
LONG_CALL = 0.15  # target length of a call of urgent utterances, or while nobody listens: rows share its fixed cost
MARGIN = 0.2  # seconds between audio and its deadline: for the call under way, and for the way to the listener
HEAD_START = 5.0  # seconds that a listener may have stalled before that counts more than another's first audio
FIRST_HOP_CALLS = 6  # that a first hop's audio lasts: while it plays, another chunk must arrive and be decoded
PATIENCE = 2.0  # seconds that an utterance nobody listens to may be put off once it is complete
MEMORY = 0.9  # weight of a call in the cost estimate once the next one has been made


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
    """One utterance that could be decoded now."""

    due: float  # when its audio is needed
    frames: int  # to compute
    last: bool  # it would be decoded to its end: waiting longer saves nothing


def due(now: float, ready_since: float, playback: Playback | None) -> float:
    """When an utterance that could be decoded since `ready_since` is due; without `playback` it is wanted as a whole.

    First audio is overdue at once, so it goes before all that is in time, and before most that is late.
    """
    if playback is None:
        return ready_since + PATIENCE
    runs_out = playback.runs_out(now)
    return ready_since - HEAD_START if runs_out is None else runs_out


class Plan(NamedTuple):
    """What to do now."""

    batch: list[int]  # the jobs of one decode call
    look_again: float | None  # if there is nothing to do: when there will be, should nothing change


def plan(now: float, jobs: Sequence[Job], cost: CostEstimate, max_rows: int, *, listened_to: bool) -> Plan:
    """The decode call to make now, of at most `max_rows` jobs; `listened_to`: some utterance is, ready or not.

    Urgent jobs are taken in the order of their deadlines, so nothing that comes later can put one off for ever. Others
    wait for more tokens, as their hop recomputes those before it; but those that end their streams fill up a call.
    """
    starts = [job.due - MARGIN - cost.seconds(job.frames) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda index: jobs[index].due)
    candidates = [(index, LONG_CALL) for index in order if starts[index] <= now]
    filled_up = SHORT_CALL if listened_to else LONG_CALL
    candidates += [(index, filled_up) for index in order if starts[index] > now and jobs[index].last]
    batch: list[int] = []
    frames = 0
    for index, longest_call in candidates:
        fits = len(batch) < max_rows and cost.seconds(frames + jobs[index].frames) <= longest_call
        if fits or not batch:
            batch.append(index)
            frames += jobs[index].frames
    return Plan(batch, None if batch else min(starts, default=None))
