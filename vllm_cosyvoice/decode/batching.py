"""Schedules decode calls: the utterance whose listener runs out of audio first is decoded first."""

import math
from collections import deque
from collections.abc import Collection, Sequence
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS
from vllm_cosyvoice.decode.hops import Cut
from vllm_cosyvoice.decode.playback import Playback

# Target length of a call in seconds while someone listens: an urgent utterance may wait this long. It is a part of what
# could be decoded now, within limits, because rows share the fixed cost of a call. A call with somebody's first audio
# may be shorter.
SHORT_CALL, MEDIUM_CALL = 0.05, 0.1
SHORT_FIRST_CALL = 0.025
PART_OF_ALL = 1 / 4
LONG_CALL = 0.15  # target length of a call of urgent utterances, or while nobody listens
MARGIN = 0.3  # seconds between audio and its deadline, for the call in progress and for the delivery
DELIVERY = 0.02  # seconds from the end of a call to the listener
HEAD_START = 5.0  # first audio takes precedence over a listener that has stalled for fewer seconds than this
# A first hop's audio must last until the next chunk has arrived and been decoded, by the times that both take now. That
# is more than one arrival, because tokens come more slowly when others begin, and three calls: the one in progress,
# another one, and its own. A call takes as long as the last ones, or as a chunk of all who wait for first audio, so
# that many can begin at once. An utterance without company waits for its own chunk and call only.
ARRIVALS, CALLS = 2.5, 3
ARRIVALS_ALONE, CALLS_ALONE = 1, 1
# Seconds that it may take to decode all that could be decoded now. If it would take longer, as on a CPU or with many
# listeners, no streamed utterance is decoded to its end where that is at least twice the work of an ordinary hop: such
# hops come first, so that listeners do not run out of audio. While no hop is urgent, it is decoded to its end, if that
# takes no longer and leaves enough time for the next hop.
LONGEST_BACKLOG = 0.5
PATIENCE = 2.0  # seconds until a complete utterance that nobody listens to is due
MEMORY = 0.9  # each new call multiplies the weight of earlier calls in the cost estimate by this
RECENT_ARRIVALS = 256  # a message of the language model brings one for each request that generates


class CostEstimate:
    """Estimates the duration of a decode call as a constant plus a cost per frame, fitted to recent calls."""

    def __init__(self) -> None:
        self._count = self._frames = self._seconds = self._squares = self._products = 0.0

    def learn(self, frames: int, seconds: float) -> None:
        """Add a call that computed `frames` in `seconds`."""
        self._count = MEMORY * self._count + 1
        self._frames = MEMORY * self._frames + frames
        self._seconds = MEMORY * self._seconds + seconds
        self._squares = MEMORY * self._squares + frames * frames
        self._products = MEMORY * self._products + frames * seconds

    @property
    def usual(self) -> float:
        """Average duration of recent calls in seconds; infinite before the first call."""
        return self._seconds / self._count if self._count else math.inf

    def seconds(self, frames: int) -> float:
        """Estimated duration of a call of `frames`, in seconds; 0 before the first call."""
        if not self._frames:
            return 0.0
        per_frame = self._seconds / self._frames
        spread = self._squares / self._count - (self._frames / self._count) ** 2
        if spread > 0:
            slope = (self._products - self._frames * self._seconds / self._count) / self._count / spread
            per_frame = min(max(slope, 0.0), per_frame)  # neither part of the cost is negative
        return max(0.0, self._seconds - per_frame * self._frames) / self._count + per_frame * frames


class Decodable(Protocol):
    """An utterance, as far as the schedule knows it."""

    streaming: bool
    playback: Playback
    pushed_at: float | None  # when its last tokens arrived
    ready_since: float | None  # when the first decode became possible

    @property
    def hops(self) -> int:
        """Decodes so far."""

    def next_cut(self, *, to_the_end: bool = True) -> Cut | None:
        """See `Utterance.next_cut`."""

    def frames(self, cut: Cut) -> int:
        """See `Utterance.frames`."""


AnUtterance = TypeVar("AnUtterance", bound=Decodable)


class Pace:
    """Estimates how fast the tokens of an utterance arrive.

    It takes the median of recent ones, because some wait for text that is streamed. Only those until the second hop
    count, as later ones are larger and fewer.
    """

    def __init__(self) -> None:
        self._seconds_a_token: deque[float] = deque(maxlen=RECENT_ARRIVALS)

    def learn(self, now: float, utterance: Decodable, tokens: int) -> None:
        """Note the arrival of `tokens` of `utterance`."""
        if utterance.pushed_at is not None and utterance.hops < 2:
            self._seconds_a_token.append((now - utterance.pushed_at) / tokens)
        utterance.pushed_at = now

    @property
    def chunk_seconds(self) -> float:
        """Estimated time in which a chunk arrives; 0 before the first arrival."""
        return CHUNK_TOKENS * median(self._seconds_a_token) if self._seconds_a_token else 0.0


def first_hop_seconds(utterances: Collection[Decodable], cost: CostEstimate, pace: Pace, *, remembers: bool) -> float:
    """How long the audio of the next first hop should last.

    Args:
        utterances: all that are being decoded, with the one of that hop.
        remembers: whether the flow does, so that a hop computes only its own frames.
    """
    alone = remembers and len(utterances) <= 1
    arrivals, calls = (ARRIVALS_ALONE, CALLS_ALONE) if alone else (ARRIVALS, CALLS)
    waiting = sum(one.streaming and one.playback.is_first and not one.hops for one in utterances)
    return arrivals * pace.chunk_seconds + calls * max(cost.usual, cost.seconds(waiting * CHUNK_FRAMES))


def _ordinary(utterance: Decodable, cut: Cut) -> Cut:
    """An ordinary hop instead of `cut` to the end of a streamed utterance, if that is at most half the work."""
    ordinary_cut = utterance.next_cut(to_the_end=False) if cut.last and utterance.streaming else None
    return ordinary_cut if ordinary_cut and 2 * utterance.frames(ordinary_cut) <= utterance.frames(cut) else cut


class Job(NamedTuple):
    """An utterance that can be decoded now."""

    due: float  # when its audio is needed
    frames: int  # for the flow to compute, without those that it remembers
    last: bool  # whether it is decoded to its end, so that waiting longer saves nothing
    first: bool = False  # whether it is first audio that its listener waits for
    playing: bool = False  # whether its listener plays earlier audio, which runs out when it is due

    @classmethod
    def of(cls, now: float, ready_since: float, playback: Playback | None, frames: int, *, last: bool) -> "Job":
        """The job of an utterance that has been ready since `ready_since`; `playback` is None if it is not streamed.

        First audio is overdue at once, so it precedes all audio that is on time and most audio that is late.
        """
        if playback is None:
            return cls(ready_since + PATIENCE, frames, last)
        runs_out = playback.runs_out(now)
        if runs_out is None:
            return cls(ready_since - HEAD_START, frames, last, first=True)
        return cls(runs_out, frames, last, playing=True)


class Plan(NamedTuple):
    """The decode call to make now."""

    batch: list[int]  # indices of its jobs
    look_again: float | None  # if the batch is empty: when to plan again, if nothing changes before


def plan(now: float, jobs: Sequence[Job], cost: CostEstimate, max_rows: int, *, listened_to: bool) -> Plan:
    """Plan a decode call of at most `max_rows` jobs. `listened_to`: any utterance, ready or not, has a listener.

    Urgent jobs are taken in the order of their deadlines, so later jobs can't starve them. Other jobs wait for more
    tokens, because each hop has costs of its own; but jobs that end their utterance fill up the call, until the
    first of its listeners would run out of audio.
    """
    starts = [job.due - MARGIN - cost.seconds(job.frames) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda index: jobs[index].due)
    urgent = [index for index in order if starts[index] <= now]
    others = [index for index in order if starts[index] > now and jobs[index].last]
    batch: list[int] = []
    frames = 0

    def take(candidates: Sequence[int], longest_call: float) -> None:
        nonlocal frames
        for index in candidates:
            fits = len(batch) < max_rows and cost.seconds(frames + jobs[index].frames) <= longest_call
            if fits or not batch:
                batch.append(index)
                frames += jobs[index].frames

    take(urgent, LONG_CALL)
    fill_limit = LONG_CALL
    if listened_to:
        shortest = SHORT_FIRST_CALL if any(jobs[index].first for index in urgent) else SHORT_CALL
        part_of_all = PART_OF_ALL * cost.seconds(sum(job.frames for job in jobs))
        fill_limit = min(max(part_of_all, shortest), MEDIUM_CALL)
    left = [jobs[index].due - DELIVERY - now for index in batch if jobs[index].playing]
    # Who has stalled for long already does not count: if the device can't keep up, full calls help most.
    take(others, min([fill_limit, *(seconds for seconds in left if seconds > -SHORT_CALL)]))
    return Plan(batch, None if batch else min(starts, default=None))


def next_call(
    now: float, utterances: Collection[AnUtterance], cost: CostEstimate, max_rows: int
) -> tuple[list[tuple[AnUtterance, Cut]], float | None]:
    """The work of the decode call to make now, and if there is none, when to look again, if nothing changes before."""
    listened_to = any(utterance.streaming for utterance in utterances)

    def choose(candidates: Sequence[tuple[AnUtterance, Cut]]) -> tuple[list[tuple[AnUtterance, Cut]], float | None]:
        jobs = [_job(now, utterance, cut) for utterance, cut in candidates]
        batch, look_again = plan(now, jobs, cost, max_rows, listened_to=listened_to)
        return [candidates[index] for index in batch], look_again

    farthest = [(utterance, cut) for utterance in utterances if (cut := utterance.next_cut())]
    if cost.seconds(sum(utterance.frames(cut) for utterance, cut in farthest)) <= LONGEST_BACKLOG:
        return choose(farthest)
    work, look_again = choose([(utterance, _ordinary(utterance, cut)) for utterance, cut in farthest])
    if look_again is None:
        return work, None
    longest = min(LONGEST_BACKLOG, look_again + MARGIN - DELIVERY - now)
    ends = [
        (utterance, cut) for utterance, cut in farthest if cut.last and cost.seconds(utterance.frames(cut)) <= longest
    ]
    work, _ = choose(ends)
    return work, None if work else look_again


def _job(now: float, utterance: Decodable, cut: Cut) -> Job:
    assert utterance.ready_since is not None
    playback = utterance.playback if utterance.streaming else None
    return Job.of(now, utterance.ready_since, playback, utterance.frames(cut), last=cut.last)
