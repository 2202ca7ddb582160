"""The decode schedule: alone, and with simulated streams, clock and device."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.decode_simulation import (
    MPS,
    ON_THE_WAY,
    REMEMBERS,
    SERVERS,
    TIME_SLICES,
    SimulatedDevice,
    SimulatedLanguageModel,
    SimulatedRun,
    SimulatedStream,
    ask,
    simulate,
)
from benchmarks.playback import play
from vllm_cosyvoice.config import CHUNK_TOKENS
from vllm_cosyvoice.decode.batching import (
    DELIVERY,
    HEAD_START,
    LONG_CALL,
    LONGEST_BACKLOG,
    MARGIN,
    MEDIUM_CALL,
    PART_OF_ALL,
    PATIENCE,
    SHORT_CALL,
    CostEstimate,
    Job,
    Plan,
    next_call,
    plan,
)
from vllm_cosyvoice.decode.hops import FIRST_HOPS, GROWTH, Cut, awaited_tokens, first_hop, next_cut, shared_first_hop
from vllm_cosyvoice.decode.playback import Playback
from vllm_cosyvoice.vocoder import CausalVocoder, Vocoder

CALL, FRAME = 0.014, 1e-5


@pytest.fixture
def cost() -> CostEstimate:
    cost = CostEstimate()
    for frames in (300, 800, 2000):
        cost.learn(frames, CALL + FRAME * frames)
    return cost


@pytest.mark.parametrize("speed", [0.25, 1.0, 1.3, 4.0])
def test_the_awaited_tokens_are_those_of_the_first_two_hops(speed: float) -> None:
    first = math.ceil(CHUNK_TOKENS * speed)
    second = next_cut(awaited_tokens(speed), first, first, finished=False, waited_for=True)
    assert second == Cut(first + CHUNK_TOKENS, last=False)
    assert next_cut(awaited_tokens(speed) - 1, first, first, finished=False, waited_for=True) is None


def test_hops_begin_small_grow_and_end_with_a_chunk() -> None:
    def cut(arrived: int, decoded: int, finished: bool = False, waited_for: bool = True) -> Cut | None:
        return next_cut(arrived, decoded, 15, finished=finished, waited_for=waited_for)

    assert cut(17, 0) is None
    assert cut(18, 0) == cut(300, 0) == cut(300, 0, finished=True) == Cut(15, last=False)
    assert cut(300, 0, finished=True, waited_for=False) == Cut(300, last=True)
    assert cut(32, 0, finished=True) == Cut(32, last=True), "one decode for what is little more than the first hop"
    assert cut(15 + CHUNK_TOKENS + 2, 15) is None
    assert cut(15 + CHUNK_TOKENS + 3, 15) == Cut(40, last=False)
    assert cut(300, 15) == Cut(65, last=False), "as far as after a first hop of a chunk"
    assert cut(300, 40) == Cut(GROWTH * 40 - 5, last=False)
    assert cut(100, 40) == Cut(90, last=False)
    assert cut(300, 40, finished=True) == Cut(300, last=True)
    assert cut(0, 0, finished=True) == Cut(0, last=True)


def test_a_first_hop_lasts_as_long_as_it_should_within_bounds() -> None:
    assert first_hop(0.0, Vocoder.hold_back) == FIRST_HOPS[0] == 10
    assert first_hop(0.28, Vocoder.hold_back) == 15, "15 tokens are 0.6 s, of which the vocoder holds back 0.32"
    assert first_hop(0.29, Vocoder.hold_back) == 16
    assert first_hop(0.5, CausalVocoder.hold_back) == 15, "CosyVoice3's holds back 0.1 s"
    assert first_hop(9.0, Vocoder.hold_back) == first_hop(math.inf, 5) == FIRST_HOPS[-1] == CHUNK_TOKENS


def test_first_hops_that_share_prompts_are_few_at_any_speed() -> None:
    assert [shared_first_hop(hop) for hop in FIRST_HOPS] == list(FIRST_HOPS)
    assert [shared_first_hop(tokens) for tokens in (3, 11, 26, 36, 81)] == [10, 14, 35, 39, 85]
    assert len({shared_first_hop(tokens) % CHUNK_TOKENS for tokens in range(3, 101)}) == len(FIRST_HOPS)


def test_a_listener_runs_dry_when_what_is_out_has_been_played() -> None:
    listener = Playback()
    listener.expect(3.0)
    assert listener.runs_out(10.0) is None
    listener.play(10.0, 0.0)
    assert listener.runs_out(10.0) is None, "silence of no length is no first audio"
    listener.play(10.0, 0.5)
    assert listener.runs_out(10.1) == 10.5
    listener.play(10.2, 1.0)
    assert listener.runs_out(10.3) == 11.5
    listener.play(12.0, 1.0)
    assert listener.runs_out(12.0) == 13.0, "after a stall playback goes on with the new piece"


def test_a_later_segment_is_due_when_those_before_it_have_been_played() -> None:
    first = Playback()
    second = Playback(first)
    third = Playback(second)
    assert [listener.is_first for listener in (first, second, third)] == [True, False, False]
    first.expect(2.0)
    second.expect(4.0)
    assert third.runs_out(10.0) == 16.0, "if the first piece came now"
    first.play(11.0, 0.5)
    assert (second.runs_out(11.0), third.runs_out(11.0)) == (13.0, 17.0)
    second.play(11.5, 4.0)
    assert second.runs_out(11.5) == third.runs_out(11.5) == 17.0


def test_what_is_due_when() -> None:
    listener = Playback()
    assert Job.of(20.0, 19.0, listener, 300, last=False) == Job(19.0 - HEAD_START, 300, last=False, first=True)
    assert Job.of(20.0, 19.0, None, 300, last=True) == Job(19.0 + PATIENCE, 300, last=True)
    listener.play(20.0, 0.3)
    assert Job.of(20.1, 19.0, listener, 300, last=False) == Job(20.3, 300, last=False, playing=True)


def test_costs_are_fitted_to_the_last_calls(cost: CostEstimate) -> None:
    assert CostEstimate().seconds(1000) == 0.0
    assert CostEstimate().usual == math.inf
    assert cost.seconds(1000) == pytest.approx(CALL + FRAME * 1000)
    for _ in range(100):
        cost.learn(500, 0.1)
        cost.learn(1000, 0.15)
    assert cost.seconds(2000) == pytest.approx(0.25, rel=0.01)
    assert cost.usual == pytest.approx(0.125, rel=0.03)


def test_equal_calls_and_costs_that_fall_with_length_are_no_trouble() -> None:
    cost = CostEstimate()
    for _ in range(5):
        cost.learn(500, 0.1)
    assert cost.seconds(500) == pytest.approx(0.1)
    assert 0.0 <= cost.seconds(0) <= cost.seconds(1000)
    cost.learn(1000, 0.01)
    assert 0.0 <= cost.seconds(0) <= cost.seconds(1000)


@pytest.mark.parametrize(("stalled_since", "goes_first"), [(9.0, "first audio"), (9.0 - HEAD_START, "later audio")])
def test_first_audio_goes_first_unless_somebody_has_stalled_for_long(
    cost: CostEstimate, stalled_since: float, goes_first: str
) -> None:
    listener = Playback()
    listener.play(stalled_since - 1.0, 1.0)
    jobs = {
        "first audio": Job.of(10.0, 9.5, Playback(), 300, last=False),
        "later audio": Job.of(10.0, 1.0, listener, 700, last=True),
    }
    [index] = plan(10.0, list(jobs.values()), cost, 1, listened_to=True).batch
    assert list(jobs)[index] == goes_first


def test_an_unfinished_hop_waits_for_its_deadline(cost: CostEstimate) -> None:
    jobs = [Job(11.0, 500, last=False), Job(12.0, 500, last=False)]
    batch, look_again = plan(10.0, jobs, cost, 16, listened_to=True)
    assert batch == []
    assert look_again == pytest.approx(11.0 - MARGIN - CALL - FRAME * 500)
    assert plan(look_again or 0.0, jobs, cost, 16, listened_to=True).batch == [0]


def test_an_idle_device_does_what_is_finished(cost: CostEstimate) -> None:
    jobs = [Job(14.0, 800, last=True), Job(11.0, 500, last=False), Job(13.0, 800, last=True)]
    assert plan(10.0, jobs, cost, 16, listened_to=True).batch == [2, 0]
    assert plan(10.0, [], cost, 16, listened_to=True) == Plan([], None)


@pytest.mark.parametrize("due_at", [9.0, 10.1])
def test_what_is_finished_fills_up_an_urgent_call(cost: CostEstimate, due_at: float) -> None:
    jobs = [Job(14.0, 800, last=True), Job(due_at, 500, last=False), Job(13.0, 800, last=False)]
    assert plan(10.0, jobs, cost, 16, listened_to=True).batch == [1, 0]


def long_streams(count: int) -> list[SimulatedStream]:
    """Streams of 60 s whose tokens have arrived, and of which 5 s have been decoded."""
    streams = [SimulatedStream(0.0, tokens=1500, remembers=True) for _ in range(count)]
    for stream in streams:
        stream.request(CHUNK_TOKENS)
        stream.push(0.0, stream.tokens)
        stream.advance(Cut(125, last=False), 0.0)
    return streams


@pytest.mark.parametrize(
    ("seconds_a_frame", "ends"), [(3e-5, 1), (1.6e-4, 1), (1e-3, 0)], ids=["a GPU", "a slow GPU", "a CPU"]
)
def test_an_idle_device_decodes_the_rest_of_some_if_it_takes_long_for_all_but_not_for_one(
    seconds_a_frame: float, ends: int
) -> None:
    cost = CostEstimate()
    cost.learn(1000, 1000 * seconds_a_frame)
    work, look_again = next_call(1.0, long_streams(8), cost, max_rows=16)
    assert [cut for _, cut in work] == ends * [Cut(1500, last=True)]
    if ends:
        assert look_again is None
    else:
        assert look_again is not None
        assert 1.0 < look_again < 5.0


def test_an_end_does_not_take_the_time_of_the_next_hop() -> None:
    cost = CostEstimate()
    cost.learn(1000, 0.16)
    streams = long_streams(2)
    (end,), _ = next_call(3.0, streams, cost, max_rows=16)
    seconds = cost.seconds(end[0].frames(end[1]))
    assert MARGIN < seconds < LONGEST_BACKLOG
    _, urgent = next_call(4.2, streams, cost, max_rows=16)
    assert urgent is not None
    assert 4.2 + seconds > urgent + MARGIN - DELIVERY
    assert next_call(urgent + MARGIN - DELIVERY - seconds - INSTANT, streams, cost, max_rows=16)[0] == [end]


def test_a_call_with_first_audio_is_filled_less() -> None:
    cost = CostEstimate()
    cost.learn(0, 0.01)
    cost.learn(1000, 0.03)
    whole = [Job(15.0, 500, last=True)] * 3
    of_listener, first = Job(9.0, 100, last=False), Job(9.0, 100, last=False, first=True)
    assert plan(10.0, [of_listener, *whole], cost, 64, listened_to=True).batch == [0, 1, 2, 3]
    assert plan(10.0, [first, *whole], cost, 64, listened_to=True).batch == [0, 1]


@pytest.mark.parametrize(
    ("left", "filled"), [(1.0, 2), (DELIVERY + 0.035, 1), (DELIVERY + 0.02, 0), (0.0, 0), (-0.1, 2)]
)
def test_a_call_is_not_filled_beyond_the_end_of_a_listeners_audio(left: float, filled: int) -> None:
    """Unless that was long ago."""
    cost = CostEstimate()
    cost.learn(0, 0.01)
    cost.learn(1000, 0.03)
    whole = [Job(15.0, 1000, last=True)] * 10
    late, urgent = (Job(due, 50, last=False, playing=True) for due in (9.0, 10.0 + left))

    def filled_with(*jobs: Job) -> int:
        batch = plan(10.0, [*jobs, *whole], cost, 64, listened_to=True).batch
        return len([index for index in batch if index >= len(jobs)])

    assert filled_with(late, urgent) == filled
    assert filled_with(late, urgent._replace(playing=False)) == 2, "nobody hears it yet"


@pytest.mark.parametrize(
    ("due_at", "listened_to", "count", "seconds"),
    [
        (9.0, True, 30, LONG_CALL),
        (9.0, False, 30, LONG_CALL),
        (15.0, True, 5, SHORT_CALL),
        (15.0, True, 30, PART_OF_ALL * (CALL + FRAME * 760 * 30)),
        (15.0, True, 100, MEDIUM_CALL),
        (15.0, False, 30, LONG_CALL),
    ],
)
def test_calls_are_as_long_as_they_may_be(
    cost: CostEstimate, due_at: float, listened_to: bool, count: int, seconds: float
) -> None:
    jobs = [Job(due_at, 760, last=True)] * count
    batch = plan(10.0, jobs, cost, 64, listened_to=listened_to).batch
    assert len(batch) == int((seconds - CALL) / FRAME / 760)
    assert len(plan(10.0, jobs, cost, 3, listened_to=listened_to).batch) == 3
    endless = [Job(due_at, 10**6, last=True)] * 2
    assert len(plan(10.0, endless, cost, 64, listened_to=listened_to).batch) == 1, "one is always done"


# Simulated: nothing below was measured


INSTANT = 1e-6  # seconds, for a clock that counts in floating point
KNOWN = 3.0  # seconds after which the schedule knows the load: 128 callers stall once when the first two are over


def no_stall(run: SimulatedRun) -> bool:
    return all(stream.stalled < INSTANT for stream in run.streams)


def first_audio(run: SimulatedRun, percentile: float) -> float:
    """Seconds from a request to its first audio."""
    times = [run.on_the_way + stream.pieces[0][0] - stream.begin for stream in run.streams if stream.pieces]
    return float(np.percentile(times, percentile))


def steady(rate: float) -> SimulatedLanguageModel:
    """One that gives each request so many tokens a second, whatever else there is to do."""
    return SimulatedLanguageModel(step=1 / rate, request=0.0, prompt=0.0, slowed=1.0)


ALONE = SimulatedDevice(share=1.0)


@pytest.mark.parametrize(("count", "p99"), [(1, 0.15), (8, 0.2), (32, 0.32)])
def test_callers_who_ask_again_at_once_hear_no_stall_and_soon(count: int, p99: float) -> None:
    run = ask(count, 30.0, *TIME_SLICES)
    assert sum(stream.done for stream in run.streams) > 15 * count
    assert all(stream.stalled < INSTANT for stream in run.streams if stream.begin > KNOWN)
    assert max(stream.stalled for stream in run.streams) < 0.15, "also while all begin, and the load is not known yet"
    assert first_audio(run, 99) < p99


@pytest.mark.parametrize(("count", "real_time", "shared"), [(64, False, TIME_SLICES), (300, True, MPS)])
def test_few_hear_a_stall_and_a_short_one_where_the_device_hardly_keeps_up(
    count: int, real_time: bool, shared: tuple[SimulatedDevice, SimulatedLanguageModel]
) -> None:
    run = ask(count, 30.0, *shared, real_time=real_time)
    stalls = np.array([stream.stalled for stream in run.streams if stream.begin > KNOWN])
    assert np.mean(stalls > INSTANT) < 0.03
    assert max(stalls) < 0.15
    assert first_audio(run, 99) < 0.5


@pytest.mark.parametrize(("count", "p99"), [(100, 0.25), (150, 0.3), (225, 0.35)])
def test_listeners_in_real_time_hear_no_stall_and_soon(count: int, p99: float) -> None:
    run = ask(count, 30.0, *TIME_SLICES, real_time=True)
    assert sum(stream.done for stream in run.streams) > 1.5 * count
    assert no_stall(run)
    assert first_audio(run, 99) < p99


@pytest.mark.parametrize(("count", "real_time", "p99"), [(64, False, 0.27), (128, False, 0.35), (450, True, 0.25)])
def test_twice_as_many_hear_no_stall_if_the_flow_remembers(count: int, real_time: bool, p99: float) -> None:
    run = ask(count, 25.0, *REMEMBERS, real_time=real_time, remembers=True)
    assert sum(stream.done for stream in run.streams) > (1.3 if real_time else 5) * count
    assert all(stream.stalled < INSTANT for stream in run.streams if stream.begin > KNOWN)
    assert first_audio(run, 99) < p99
    assert run.work < 0.8, "the prompt and earlier hops are not computed"


@pytest.mark.parametrize(
    ("count", "real_time", "median", "sooner", "more"),
    [
        (32, False, 0.11, 1.05, 0.8),
        (64, False, 0.17, 1.05, 1.03),
        (128, False, 0.3, 0.75, 1.2),
        (550, True, 0.16, 1.05, 0.98),
    ],
)
def test_two_decode_processes_are_heard_sooner_or_do_more(
    count: int, real_time: bool, median: float, sooner: float, more: float
) -> None:
    servers = (SERVERS[name] for name in ("remembers", "two decode processes"))
    one, two = (ask(count, 25.0, *fitted, real_time=real_time, **server) for fitted, server in servers)
    assert all(stream.stalled < INSTANT for stream in two.streams if stream.begin > KNOWN)
    assert first_audio(two, 50) < median
    assert sooner * first_audio(two, 50) < first_audio(one, 50)
    done_by_one, done_by_two = (sum(stream.done for stream in run.streams) for run in (one, two))
    assert done_by_two >= more * done_by_one


def test_long_utterances_cost_little_more_in_hops_than_at_once() -> None:
    device, server = SERVERS["two decode processes"]
    streamed, whole = (
        sum(seconds for stream in run.streams for _, seconds in stream.pieces)
        for run in (ask(32, 30.0, *device, streaming=streaming, tokens=1500, **server) for streaming in (True, False))
    )
    assert 1.2 * streamed > whole


def test_one_caller_hears_audio_sooner_than_one_of_many() -> None:
    hops = {}
    for count in (1, 64):
        run = ask(count, 10.0, *TIME_SLICES)
        hops[count] = [stream.first_hop or 0 for stream in run.streams if stream.pieces and stream.begin > KNOWN]
    assert FIRST_HOPS[0] <= min(hops[1])
    assert max(hops[1]) <= 15 < min(hops[64])
    assert max(hops[64]) <= CHUNK_TOKENS


def test_more_listeners_than_the_device_can_serve_are_late_by_a_bounded_time() -> None:
    run = ask(400, 40.0, *TIME_SLICES, real_time=True)
    assert first_audio(run, 100) < 3.0
    assert max(stream.stalled for stream in run.streams) < HEAD_START + 1
    assert all(stream.done for stream in run.streams if stream.begin < 40 - 10 - HEAD_START)


@pytest.mark.parametrize(("rate", "most"), [(500, 1.85), (350, 1.9), (150, 2.5)])
def test_little_is_computed_twice(rate: float, most: float) -> None:
    run = ask(16, 30.0, ALONE, steady(rate), real_time=True)
    assert 1.0 < run.work < most


def test_a_burst_of_requests_is_heard_in_a_call_or_two() -> None:
    known = [SimulatedStream(0.1 * index) for index in range(20)]  # the schedule knows its device
    run = simulate([*known, *(SimulatedStream(5.0) for _ in range(32))])
    assert max(stream.waited for stream in run.streams) < 4 * SHORT_CALL
    assert max(stream.stalled for stream in run.streams) < SHORT_CALL


def test_many_who_begin_at_once_and_ask_again_at_once_hear_no_stall() -> None:
    draws = random.Random(0)

    def new(begin: float) -> SimulatedStream:
        return SimulatedStream(begin + draws.uniform(0.5, 1.5) * ON_THE_WAY, remembers=True)

    run = simulate(
        [new(draws.uniform(0, 0.02)) for _ in range(64)], 12.0, *REMEMBERS, lambda stream: new(stream.pieces[-1][0])
    )
    assert len(run.streams) > 600
    assert no_stall(run)


@pytest.mark.parametrize("within", [0.02, 2.0], ids=["at once", "in 2 s"])
@pytest.mark.parametrize("slower", [False, True])
def test_few_of_many_who_begin_after_a_pause_stall_and_briefly(within: float, slower: bool) -> None:
    pause, (device, language_model), server = 4.0, *SERVERS["two decode processes"]
    if slower:
        device, language_model = replace(device, share=0.7), replace(language_model, prompt=3e-3)
    stalls: list[float] = []
    for seed in range(4):
        draws = random.Random(seed)

        def new(begin: float, draws: random.Random = draws) -> SimulatedStream:
            return SimulatedStream(begin + draws.uniform(0.0, 0.02), remembers=True)

        def again(stream: SimulatedStream) -> SimulatedStream | None:
            end = stream.pieces[-1][0]
            return None if stream.begin < pause and end > pause - 1.0 else new(end)

        before = [new(draws.uniform(0.0, 1.0)) for _ in range(64)]
        after = [new(pause + draws.uniform(0.0, within)) for _ in range(128)]
        run = simulate([*before, *after], 9.0, device, language_model, again, decoders=server["decoders"])
        stalls += [stream.stalled for stream in run.streams if stream.begin >= pause]
    assert len(stalls) > 1200
    assert sum(stall > INSTANT for stall in stalls) < 0.002 * len(stalls)
    assert max(stalls) < 0.1


def test_callers_who_want_it_whole_take_what_listeners_leave_and_get_it_soon() -> None:
    draws = random.Random(1)

    def again(stream: SimulatedStream) -> SimulatedStream:
        heard = play(stream.pieces).end if stream.streaming else stream.pieces[-1][0]
        return SimulatedStream(heard + ON_THE_WAY, streaming=stream.streaming)

    listened_to = [SimulatedStream(draws.uniform(0, 10)) for _ in range(100)]
    whole = [SimulatedStream(draws.uniform(0, 1), streaming=False) for _ in range(32)]
    run = simulate([*listened_to, *whole], 30.0, follow=again)
    assert no_stall(run)
    asked_whole = [stream for stream in run.streams if not stream.streaming]
    assert sum(stream.done for stream in asked_whole) > 8 * len(whole)
    assert max(stream.waited for stream in asked_whole if stream.done) < PATIENCE
    assert all(stream.done for stream in asked_whole if stream.begin < 25)


def test_a_flood_of_first_hops_does_not_starve_what_was_there() -> None:
    """Twice as many as the device can do, for 20 s: without a bound the others would have to wait for 40 s."""
    flood = [SimulatedStream(2 + index / 40, tokens=30) for index in range(800)]
    early, whole = SimulatedStream(0.0, tokens=500), SimulatedStream(1.0, streaming=False)
    slow = SimulatedDevice(solve=0.01, frame=1.4e-4, pair=0.0, share=1.0)
    simulate([early, whole, *flood], device=slow, language_model=steady(150))
    assert max(stream.waited for stream in flood) > 15
    assert early.stalled < 20
    assert whole.waited < 20


def test_calls_are_large_when_nobody_listens() -> None:
    run = ask(128, 20.0, ALONE, steady(300), streaming=False)
    done = sum(stream.done for stream in run.streams)
    row = ALONE.seconds([run.streams[0].frames(Cut(250, last=True))], spoken=500)
    assert done / 20 > 0.8 / (row - ALONE.solve + ALONE.solve / 9), "as if most calls were of nine rows"


def test_segments_of_one_text_are_decoded_once_when_tokens_come_fast() -> None:
    first = SimulatedStream(0.0)
    second = SimulatedStream(0.0, previous=first)
    third = SimulatedStream(0.0, previous=second)
    run = simulate([first, second, third])
    assert [len(stream.pieces) for stream in (second, third)] == [1, 1]
    assert no_stall(run)
