"""Runs the decode schedule with a simulated clock, language model and device, to choose its constants.

Nothing here is measured: formulas give the times of a step of the language model and of a decode call. But their
constants are fitted to measurements, and streams stall where the server's did. `python -m
benchmarks.decode_simulation` prints a table.
"""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.playback import play
from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.decode.batching import CostEstimate, Pace, first_hop_seconds, next_call
from vllm_cosyvoice.decode.hops import Cut, first_hop, next_cut, shared_first_hop
from vllm_cosyvoice.decode.playback import Playback
from vllm_cosyvoice.flow.cuda.unet import BEST_SIZE
from vllm_cosyvoice.vocoder import Vocoder

ON_THE_WAY = 0.02  # seconds that a request and its audio spend in other processes
SECONDS = 60.0
WARM_UP = 5.0  # seconds that are not counted
SOON = 1e-6  # seconds, tolerance for floating-point times


@dataclass(frozen=True)
class SimulatedLanguageModel:
    """Seconds of a step, which gives each request a token (measured: `benchmarks.language_model`, RESULTS.md)."""

    step: float = 2.7e-3
    request: float = 21e-6
    prompt: float = 1.5e-3  # for each prompt read in the step
    slowed: float = 1.35  # factor during a decode call
    at_once: int = 1  # steps that are planned at once if no prompt is read

    def seconds(self, requests: int, prompts: int, *, beside: bool) -> float:
        """The seconds of a step with `requests` requests, `prompts` of them new; `beside`: during a decode call."""
        seconds = self.step + self.request * requests + self.prompt * prompts
        return seconds * self.slowed if beside else seconds


@dataclass(frozen=True)
class SimulatedDevice:
    """Seconds of a decode call, within 10 to 20 % of an H200's (measured: `benchmarks.decode`, RESULTS.md)."""

    call: float = 0.0  # at least
    solve: float = 17e-3  # each solve, of up to BEST_SIZE frames
    frame: float = 6.75e-6  # of the flow
    pair: float = 7.7e-9  # of frames of one row: attention
    vocoder_frame: float = 2.8e-6
    share: float = 0.6  # of the device, while the language model runs, too
    beside: float = 0.5  # factor of a call's speed for each other call at the same time

    def seconds(self, rows: Sequence[int], spoken: int) -> float:
        """The seconds of a call with `rows` of frames and `spoken` frames of audio, alone on the device."""
        solves = math.ceil(sum(rows) / BEST_SIZE)
        flow = sum(frames * (self.frame + self.pair * frames) for frames in rows)
        return max(self.call, solves * self.solve + flow + self.vocoder_frame * spoken)


@dataclass(eq=False)
class SimulatedStream:
    """One utterance of `tokens`, requested from the language model at `begin`; `previous` is played before it."""

    begin: float
    tokens: int = 250
    streaming: bool = True
    first_hop: int | None = None  # None: depends on the load
    prompt: int = 125
    remembers: bool = False  # whether the flow has its prompt, and keeps its hops
    previous: "SimulatedStream | None" = None

    playback: Playback = field(init=False)
    arrived: int = 0  # tokens
    pushed_at: float | None = None
    decoded: int = 0
    done: bool = False
    ready_since: float | None = None  # when the first decode became possible
    computed: int = 0  # frames
    remembered: int = 0  # frames
    pieces: list[tuple[float, float]] = field(default_factory=list)  # time, seconds of audio

    def __post_init__(self) -> None:
        self.playback = Playback(self.previous.playback if self.previous else None)
        if self.previous:
            self.first_hop = CHUNK_TOKENS

    @property
    def waited(self) -> float:
        """Seconds from when the first decode became possible to the first audio."""
        assert self.ready_since is not None
        return self.pieces[0][0] - self.ready_since

    @property
    def stalled(self) -> float:
        """Seconds of silence for its listener."""
        return play(self.pieces).stalled

    def request(self, usual_first_hop: int) -> None:
        """Begin, with `usual_first_hop` unless a first hop is set. See `Utterance.begin`."""
        self.first_hop = self.first_hop or usual_first_hop
        if self.remembers:
            if self.streaming:
                self.first_hop = shared_first_hop(self.first_hop)
                self.prompt -= (self.prompt + self.first_hop) % CHUNK_TOKENS
            self.remembered = (self.prompt - LOOKAHEAD_TOKENS) // CHUNK_TOKENS * CHUNK_FRAMES

    @property
    def hops(self) -> int:
        """See `Utterance`."""
        return len(self.pieces)

    def push(self, now: float, tokens: int) -> None:
        """Add tokens."""
        self.arrived += tokens
        self.playback.expect(tokens / TOKEN_RATE)
        if self.ready_since is None and self.next_cut():
            self.ready_since = now

    def next_cut(self, *, to_the_end: bool = True) -> Cut | None:
        """See `Utterance.next_cut`."""
        finished = self.arrived == self.tokens
        if self.streaming:
            hop, waited_for = self.first_hop or CHUNK_TOKENS, self.previous is None
            return next_cut(self.arrived, self.decoded, hop, finished=finished and to_the_end, waited_for=waited_for)
        return Cut(self.arrived, last=True) if finished else None

    def frames(self, cut: Cut) -> int:
        """See `Utterance.frames`."""
        return FRAMES_PER_TOKEN * (self.prompt + cut.tokens) - self.remembered

    def advance(self, cut: Cut, now: float) -> None:
        """Output the audio of the decode up to `cut`."""
        audible = FRAMES_PER_TOKEN * cut.tokens - (0 if cut.last else Vocoder.hold_back)
        seconds = audible / FRAMES_PER_TOKEN / TOKEN_RATE - sum(seconds for _, seconds in self.pieces)
        self.pieces.append((now, seconds))
        self.playback.play(now, seconds)
        frames = self.frames(cut)
        self.computed += frames
        if self.remembers:
            self.remembered += frames
        self.decoded, self.done = cut.tokens, cut.last


@dataclass
class _Call:
    begun: float
    batch: list[tuple[SimulatedStream, Cut]]
    frames: int
    left: float  # seconds, alone on the device
    end: float = math.inf  # if the device stays as busy as now


class _Decoder:
    """A decode process."""

    def __init__(self, max_rows: int) -> None:
        self.cost = CostEstimate()
        self.pace = Pace()
        self.live: list[SimulatedStream] = []
        self.call: _Call | None = None
        self._max_rows = max_rows

    def add(self, stream: SimulatedStream) -> None:
        self.live.append(stream)
        seconds = first_hop_seconds(self.live, self.cost, self.pace, remembers=stream.remembers)
        stream.request(first_hop(seconds, Vocoder.hold_back))

    def push(self, now: float, stream: SimulatedStream, tokens: int) -> None:
        """Add tokens to a stream, at most those that are left."""
        tokens = min(tokens, stream.tokens - stream.arrived)
        self.pace.learn(now, stream, tokens)
        stream.push(now, tokens)

    def begin(self, now: float, device: SimulatedDevice) -> float:
        """Begin a call, if there is something to decode; return when to look again."""
        if self.call is not None:
            return math.inf
        batch, look_again = next_call(now, self.live, self.cost, self._max_rows)
        if batch:
            rows = [stream.frames(cut) for stream, cut in batch]
            spoken = sum(FRAMES_PER_TOKEN * (cut.tokens - stream.decoded) for stream, cut in batch)
            self.call = _Call(now, batch, sum(rows), device.seconds(rows, spoken))
        return look_again or math.inf

    def end(self, now: float) -> list[SimulatedStream]:
        """End the call; return the streams that are done."""
        assert self.call is not None
        self.cost.learn(self.call.frames, now - self.call.begun)
        for stream, cut in self.call.batch:
            stream.advance(cut, now)
        done = [stream for stream, cut in self.call.batch if cut.last]
        self.live = [stream for stream in self.live if stream not in done]
        self.call = None
        return done


@dataclass
class SimulatedRun:
    """All streams, and the calls of the device: begin, seconds and rows of each."""

    streams: list[SimulatedStream]
    calls: list[tuple[float, float, int]] = field(default_factory=list)
    on_the_way: float = ON_THE_WAY

    @property
    def work(self) -> float:
        """Computed frames divided by those of a single decode per utterance."""
        done = [stream for stream in self.streams if stream.done]
        return sum(stream.computed for stream in done) / sum(
            FRAMES_PER_TOKEN * (stream.prompt + stream.tokens) for stream in done
        )


def simulate(
    streams: Sequence[SimulatedStream],
    until: float = math.inf,
    device: SimulatedDevice = SimulatedDevice(),
    language_model: SimulatedLanguageModel = SimulatedLanguageModel(),
    follow: Callable[[SimulatedStream], SimulatedStream | None] = lambda stream: None,
    max_rows: int = 64,
    decoders: int = 1,
) -> SimulatedRun:
    """Run `streams`, and the successor that `follow` returns for each finished one, until the time `until`.

    decoders: decode processes that share the device.
    """
    run, processes = SimulatedRun(list(streams)), [_Decoder(max_rows) for _ in range(decoders)]
    upcoming = [(stream.begin, index, stream) for index, stream in enumerate(streams)]
    heapq.heapify(upcoming)
    homes: dict[SimulatedStream, _Decoder] = {}
    requested: list[SimulatedStream] = []  # for the next step
    generating: list[SimulatedStream] = []
    step_end = math.inf
    steps = 1  # until then
    now = 0.0
    while (upcoming or any(process.live for process in processes)) and now < until:
        while upcoming and upcoming[0][0] <= now:
            stream = heapq.heappop(upcoming)[2]
            homes[stream] = min(processes, key=lambda process: len(process.live))
            homes[stream].add(stream)
            requested.append(stream)
        if step_end == math.inf and (requested or generating):
            generating += requested
            steps = 1 if requested else language_model.at_once
            beside = any(process.call for process in processes)
            step_end = now + steps * language_model.seconds(len(generating), len(requested), beside=beside)
            requested = []
        look_again = min(process.begin(now, device) for process in processes)
        calls = [process.call for process in processes if process.call]
        share = 1.0 if step_end == math.inf else device.share
        share *= device.beside ** max(0, len(calls) - 1)
        for call in calls:
            call.end = now + call.left / share
        ends = [call.end for call in calls]
        after = min([step_end, look_again, *ends, *(begin for begin, _, _ in upcoming[:1])])
        for call in calls:
            call.left -= (after - now) * share
        now = after
        if now == step_end:
            for stream in generating:
                homes[stream].push(now, stream, steps)
            generating = [stream for stream in generating if stream.arrived < stream.tokens]
            step_end = math.inf
        for process in processes:
            if (ended := process.call) and now == ended.end:
                run.calls.append((ended.begun, now - ended.begun, len(ended.batch)))
                for stream in process.end(now):
                    if successor := follow(stream):
                        run.streams.append(successor)
                        heapq.heappush(upcoming, (successor.begin, len(run.streams), successor))
    return run


def ask(
    count: int,
    seconds: float,
    device: SimulatedDevice = SimulatedDevice(),
    language_model: SimulatedLanguageModel = SimulatedLanguageModel(),
    *,
    real_time: bool = False,
    streaming: bool = True,
    tokens: int = 250,
    remembers: bool = False,
    decoders: int = 1,
    on_the_way: float = ON_THE_WAY,
) -> SimulatedRun:
    """Simulate `count` callers, who send a new request when all audio has arrived or, in `real_time`, been played.

    tokens: of an utterance.
    """
    draws = random.Random(0)

    def new(moment: float) -> SimulatedStream:
        moment += draws.uniform(0.5, 1.5) * on_the_way
        return SimulatedStream(moment, tokens, streaming, remembers=remembers)

    def again(stream: SimulatedStream) -> SimulatedStream:
        return new(play(stream.pieces).end if real_time else stream.pieces[-1][0])

    first = [new(draws.uniform(0, 10 if real_time else 1)) for _ in range(count)]
    run = simulate(first, seconds, device, language_model, again, decoders=decoders)
    run.on_the_way = on_the_way
    return run


TIME_SLICES = SimulatedDevice(), SimulatedLanguageModel()
MPS = SimulatedDevice(share=0.84), SimulatedLanguageModel(slowed=1.9)
# Fitted to servers of 2026-11-29 with one and two decode processes (RESULTS.md): MPS, vLLM 0.33, a flow that remembers.
REMEMBERS = (
    SimulatedDevice(
        call=17e-3, solve=10.5e-3, frame=17.2e-6, pair=2.8e-9, vocoder_frame=2.7e-6, share=0.785, beside=0.68
    ),
    SimulatedLanguageModel(step=0.8e-3, request=5.3e-6, prompt=1.7e-3, slowed=2.1, at_once=4),
)
Server = tuple[SimulatedDevice, SimulatedLanguageModel]
SERVERS: dict[str, tuple[Server, dict[str, Any]]] = {  # with further arguments of `ask`
    "time slices": (TIME_SLICES, {}),
    "MPS": (MPS, {}),
    "remembers": (REMEMBERS, {"remembers": True, "on_the_way": 0.012}),
    "two decode processes": (REMEMBERS, {"remembers": True, "on_the_way": 0.012, "decoders": 2}),
}
LOADS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "{} callers, streaming": ((1, 8, 32, 64, 128), {}),
    "{} callers, whole": ((32, 64, 128), {"streaming": False}),
    "{} callers, streaming 60 s": ((16, 32, 64), {"tokens": 1500}),
    "{} callers, whole 60 s": ((16, 32, 64), {"tokens": 1500, "streaming": False}),
    "{} listeners in real time": ((100, 150, 250, 300, 450, 550), {"real_time": True}),
}


def main() -> None:
    """Print the figures for several loads."""
    for how, ((device, language_model), server) in SERVERS.items():
        print(f"\n| {how} | first audio ms, p50 / p99 | all s | stalled % | for s | a-s/s | hops | rows | busy % |")
        print("|" + 9 * "---|")
        for who, (counts, asking) in LOADS.items():
            for count in counts:
                run = ask(count, SECONDS, device, language_model, **server, **asking)
                print(f"| {who.format(count)} | {_figures(run)} |")


def _figures(run: SimulatedRun) -> str:
    begun = [stream for stream in run.streams if stream.pieces and stream.begin > WARM_UP]
    first = [1000 * (run.on_the_way + stream.pieces[0][0] - stream.begin) for stream in begun]
    whole = [run.on_the_way + stream.pieces[-1][0] - stream.begin for stream in begun if stream.done]
    stalls = np.array([stream.stalled for stream in begun])
    audio = sum(seconds for stream in run.streams for when, seconds in stream.pieces if when > WARM_UP)
    figures = (
        f"{np.median(first):.0f} / {np.percentile(first, 99):.0f}",
        f"{np.median(whole):.2f}",
        f"{100 * np.mean(stalls > SOON):.1f}",
        f"{np.mean(stalls):.3f}",
        f"{audio / (SECONDS - WARM_UP):.0f}",
        f"{np.mean([len(stream.pieces) for stream in begun if stream.done]):.2f}",
        f"{np.mean([rows for _, _, rows in run.calls]):.1f}",
        f"{100 * sum(seconds for _, seconds, _ in run.calls) / SECONDS:.0f}",
    )
    return " | ".join(figures)


if __name__ == "__main__":
    main()
