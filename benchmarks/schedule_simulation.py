"""The decode schedule on a clock and a device that are simulated: how its constants were chosen, and tested.

Nothing here is measured: speech tokens come at a steady rate and a decode call takes what a formula says. Its constants
are fitted to what was measured, though, and it stalls where the server did. `python -m benchmarks.schedule_simulation`
prints a table.
"""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.playback import play
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.flow.packed import BEST_SIZE
from vllm_cosyvoice.hop_schedule import LONG_CALL, SHORT_CALL, CostEstimate, Job, Listener, due, plan
from vllm_cosyvoice.hops import Cut, next_cut
from vllm_cosyvoice.vocoder.stream import HOLD_BACK

SOON = 1e-9  # seconds, for a clock that counts in floating point
PREFILL = 0.03  # seconds from a request to its first token
CALLERS = ((1, 370), (32, 218), (64, 185))  # how many, speech tokens a second of each
LISTENERS = ((100, 250), (150, 240), (250, 200), (300, 180))
FIRST_HOPS = (10, 15, 25)
SHARES = (0.6, 0.84)  # of the device that was left to the decoder by time slices, and under MPS
SECONDS = 60.0


@dataclass(frozen=True)
class SimulatedDevice:
    """Seconds of a decode call, within a tenth or two of an H200's (measured: `benchmarks.decode`, RESULTS.md)."""

    solve: float = 17e-3  # each solve, of up to BEST_SIZE frames
    frame: float = 6.75e-6  # of the flow
    pair: float = 7.7e-9  # of frames of one row: attention
    vocoder_frame: float = 2.8e-6
    share: float = 1.0  # of the device: the language model has the rest

    def seconds(self, rows: Sequence[int], spoken: int) -> float:
        """Of a call with rows of so many frames, in which `spoken` frames become audio."""
        solves = math.ceil(sum(rows) / BEST_SIZE)
        flow = sum(frames * (self.frame + self.pair * frames) for frames in rows)
        return (solves * self.solve + flow + self.vocoder_frame * spoken) / self.share


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
        rows = [jobs[index].frames for index in batch]
        spoken = sum(FRAMES_PER_TOKEN * (able[index][1].tokens - able[index][0].decoded) for index in batch)
        seconds = device.seconds(rows, spoken)
        run.calls.append((now, seconds, len(batch)))
        cost.learn(sum(rows), seconds)
        now += seconds
        for stream, cut in (able[index] for index in batch):
            stream.advance(cut, now)
            if cut.last:
                live.remove(stream)
                if successor := follow(stream):
                    run.streams.append(successor)
                    heapq.heappush(coming, (successor.begin, len(run.streams), successor))
    return run


def listen(
    count: int,
    rate: float,
    seconds: float,
    first_hop: int,
    device: SimulatedDevice | None = None,
    *,
    impatient: bool = False,
) -> SimulatedRun:
    """So many listeners, each of whom asks again when its utterance has been played; `impatient`: when all is there."""
    draws = random.Random(0)

    def ask(moment: float) -> SimulatedStream:
        return SimulatedStream(moment + PREFILL, rate, first_hop=first_hop)

    def again(stream: SimulatedStream) -> SimulatedStream:
        return ask(stream.pieces[-1][0] if impatient else play(stream.pieces).end)

    first = [ask(draws.uniform(0, 1 if impatient else 10)) for _ in range(count)]
    return simulate(first, until=seconds, follow=again, device=device)


def main() -> None:
    """The figures for some loads."""
    print("| who | share | first hop | first audio ms, p50 | p99 | stalled % | for s | a-s/s | work | busy % | rows |")
    print("|" + 11 * "---:|")
    for share in SHARES:
        for impatient, loads in ((True, CALLERS), (False, LISTENERS)):
            for count, rate in loads:
                for first_hop in FIRST_HOPS:
                    run = listen(count, rate, SECONDS, first_hop, SimulatedDevice(share=share), impatient=impatient)
                    who = f"{count} {'callers' if impatient else 'listeners'}"
                    print(f"| {who} | {share} | {first_hop} | {_figures(run)} |")


def _figures(run: SimulatedRun) -> str:
    begun = [stream for stream in run.streams if stream.pieces]
    waits = [1000 * (PREFILL + stream.pieces[0][0] - stream.begin) for stream in begun]
    stalls = np.array([stream.stalled for stream in begun])
    audio = sum(seconds for stream in begun for _, seconds in stream.pieces)
    busy = sum(seconds for _, seconds, _ in run.calls)
    figures = (
        f"{np.median(waits):.0f}",
        f"{np.percentile(waits, 99):.0f}",
        f"{100 * np.mean(stalls > 0):.1f}",
        f"{np.mean(stalls):.2f}",
        f"{audio / SECONDS:.0f}",
        f"{run.work:.2f}",
        f"{100 * busy / SECONDS:.0f}",
        f"{np.mean([rows for _, _, rows in run.calls]):.1f}",
    )
    return " | ".join(figures)


if __name__ == "__main__":
    main()
