"""The decode schedule on a clock and a device that are simulated: how its constants were chosen, and tested.

Nothing here is measured: speech tokens come at a steady rate and a decode call takes what a formula says.
`python -m benchmarks.schedule_simulation` prints a table.
"""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.playback import play
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.hop_schedule import LONG_CALL, SHORT_CALL, CostEstimate, Job, Listener, due, plan
from vllm_cosyvoice.hops import Cut, next_cut
from vllm_cosyvoice.vocoder.stream import HOLD_BACK

SOON = 1e-9  # seconds, for a clock that counts in floating point
PREFILL = 0.03  # seconds from a request to its first token
LOADS = ((32, 350), (150, 200), (150, 120), (300, 120), (400, 110))  # listeners, speech tokens a second of each
FIRST_HOPS = (10, 13, 15, 20, 25)
SECONDS = 60.0


@dataclass(frozen=True)
class SimulatedDevice:
    """Seconds of a decode call: a constant, and so much a frame. About what an H200 may do."""

    call: float = 14e-3
    flow_frame: float = 8e-6
    vocoder_frame: float = 2e-6


@dataclass
class SimulatedStream:
    """One utterance of `tokens`, which come `rate` a second from `begin` on; `previous` is heard before it."""

    begin: float
    rate: float
    tokens: int = 250
    streaming: bool = True
    first_hop: int = 15
    prompt: int = 125
    previous: "SimulatedStream | None" = None

    listener: Listener = field(init=False)
    decoded: int = 0
    done: bool = False
    expected: int = 0  # tokens that the listener knows of
    computed: int = 0  # frames
    pieces: list[tuple[float, float]] = field(default_factory=list)  # when, seconds of audio

    def __post_init__(self) -> None:
        self.listener = Listener(self.previous.listener if self.previous else None)
        if self.previous:
            self.first_hop = CHUNK_TOKENS

    @property
    def ready(self) -> float:
        """When the first decode can be made."""
        return self.has(min(self.tokens, self.first_hop + LOOKAHEAD_TOKENS) if self.streaming else self.tokens)

    @property
    def waited(self) -> float:
        """Seconds from then to the first audio."""
        return self.pieces[0][0] - self.ready

    @property
    def stalled(self) -> float:
        """Seconds of silence that its listener heard."""
        return play(self.pieces).stalled

    def has(self, tokens: int) -> float:
        """When so many tokens are there."""
        return self.begin + tokens / self.rate

    def arrived(self, now: float) -> int:
        """Tokens that are there."""
        return max(0, min(self.tokens, math.floor((now + SOON - self.begin) * self.rate)))

    def cut(self, now: float) -> Cut | None:
        """How far a decode would go."""
        arrived = self.arrived(now)
        finished = arrived == self.tokens
        if self.streaming:
            waited_for = self.previous is None
            return next_cut(arrived, self.decoded, self.first_hop, finished=finished, waited_for=waited_for)
        return Cut(arrived, last=True) if finished else None

    def frames(self, tokens: int) -> int:
        """Frames to compute for a decode that goes so far."""
        return FRAMES_PER_TOKEN * (self.prompt + tokens)

    def next_change(self, now: float) -> float:
        """When it can next be decoded, or decoded further, by the tokens that come."""
        hop = CHUNK_TOKENS if self.decoded else self.first_hop
        times = self.has(min(self.tokens, self.decoded + hop + LOOKAHEAD_TOKENS)), self.has(self.tokens)
        return min((time for time in times if time > now + SOON), default=math.inf)

    def advance(self, cut: Cut, now: float) -> None:
        """Put out what the decode up to `cut` gave."""
        audible = FRAMES_PER_TOKEN * cut.tokens - (0 if cut.last else HOLD_BACK)
        seconds = audible / FRAMES_PER_TOKEN / TOKEN_RATE - sum(seconds for _, seconds in self.pieces)
        self.pieces.append((now, seconds))
        self.listener.hear(now, seconds)
        self.computed += self.frames(cut.tokens)
        self.decoded, self.done = cut.tokens, cut.last


@dataclass
class SimulatedRun:
    """All streams, and what the device did: begin, seconds and rows of each call."""

    streams: list[SimulatedStream]
    calls: list[tuple[float, float, int]] = field(default_factory=list)

    @property
    def work(self) -> float:
        """Frames computed over those that one decode of each utterance would have computed."""
        done = [stream for stream in self.streams if stream.done]
        return sum(stream.computed for stream in done) / sum(stream.frames(stream.tokens) for stream in done)


def simulate(
    streams: Sequence[SimulatedStream],
    until: float = math.inf,
    device: SimulatedDevice | None = None,
    follow: Callable[[SimulatedStream], SimulatedStream | None] = lambda stream: None,
    max_rows: int = 64,
) -> SimulatedRun:
    """Decode `streams`, and what `follow` makes of each that is done, until the clock says `until`."""
    device, cost, run = device or SimulatedDevice(), CostEstimate(), SimulatedRun(list(streams))
    coming = [(stream.begin, index, stream) for index, stream in enumerate(streams)]
    heapq.heapify(coming)
    live: list[SimulatedStream] = []
    now = 0.0
    while (live or coming) and now < until:
        while coming and coming[0][0] <= now:
            live.append(heapq.heappop(coming)[2])
        for stream in live:
            stream.listener.expect((stream.arrived(now) - stream.expected) / TOKEN_RATE)
            stream.expected = stream.arrived(now)
        able = [(stream, cut) for stream in live if (cut := stream.cut(now))]
        jobs = [
            Job(due(now, s.ready, s.listener if s.streaming else None), s.frames(cut.tokens), cut.last)
            for s, cut in able
        ]
        longest_call = SHORT_CALL if any(stream.streaming for stream in live) else LONG_CALL
        batch, look_again = plan(now, jobs, cost, max_rows, longest_call)
        if not batch:
            changes = [stream.next_change(now) for stream in live] + [begin for begin, _, _ in coming[:1]]
            now = min([*changes, look_again or math.inf])
            continue
        frames = sum(jobs[index].frames for index in batch)
        spoken = sum(FRAMES_PER_TOKEN * (able[index][1].tokens - able[index][0].decoded) for index in batch)
        seconds = device.call + device.flow_frame * frames + device.vocoder_frame * spoken
        run.calls.append((now, seconds, len(batch)))
        cost.learn(frames, seconds)
        now += seconds
        for stream, cut in (able[index] for index in batch):
            stream.advance(cut, now)
            if cut.last:
                live.remove(stream)
                if successor := follow(stream):
                    run.streams.append(successor)
                    heapq.heappush(coming, (successor.begin, len(run.streams), successor))
    return run


def listen(count: int, rate: float, seconds: float, first_hop: int) -> SimulatedRun:
    """So many listeners, each of whom asks again when its utterance has been played."""
    draws = random.Random(0)

    def ask(moment: float) -> SimulatedStream:
        return SimulatedStream(moment + PREFILL, rate, first_hop=first_hop)

    first = [ask(draws.uniform(0, 10)) for _ in range(count)]
    return simulate(first, until=seconds, follow=lambda stream: ask(play(stream.pieces).end))


def main() -> None:
    """The figures for some loads."""
    print(
        "| listeners | tokens/s each | first hop | first audio ms p50 | p99 | stalled % | work | busy % | rows a call |"
    )
    print("|" + 9 * "---:|")
    for count, rate in LOADS:
        for first_hop in FIRST_HOPS:
            run = listen(count, rate, SECONDS, first_hop)
            begun = [stream for stream in run.streams if stream.pieces]
            waits = [1000 * (stream.pieces[0][0] - stream.begin) for stream in begun]
            stalled = 100 * np.mean([stream.stalled > 0 for stream in begun])
            busy = 100 * sum(seconds for _, seconds, _ in run.calls) / SECONDS
            rows = np.mean([rows for _, _, rows in run.calls])
            print(
                f"| {count} | {rate} | {first_hop} | {np.median(waits):.0f} | {np.percentile(waits, 99):.0f}"
                f" | {stalled:.1f} | {run.work:.2f} | {busy:.0f} | {rows:.1f} |"
            )


if __name__ == "__main__":
    main()
