"""The decode schedule: alone, and with simulated streams, clock and device."""

import random

import pytest

from benchmarks.schedule_simulation import SimulatedDevice, SimulatedRun, SimulatedStream, listen, simulate
from vllm_cosyvoice.config import CHUNK_TOKENS
from vllm_cosyvoice.hop_schedule import (
    HEAD_START,
    LONG_CALL,
    MARGIN,
    PATIENCE,
    SHORT_CALL,
    CostEstimate,
    Job,
    Listener,
    Plan,
    due,
    plan,
)
from vllm_cosyvoice.hops import GROWTH, Cut, next_cut

CALL, FRAME = 0.014, 1e-5


@pytest.fixture
def cost() -> CostEstimate:
    cost = CostEstimate()
    for frames in (300, 800, 2000):
        cost.learn(frames, CALL + FRAME * frames)
    return cost


def test_hops_begin_small_grow_and_end_with_a_chunk() -> None:
    def cut(arrived: int, decoded: int, finished: bool = False, waited_for: bool = True) -> Cut | None:
        return next_cut(arrived, decoded, 15, finished=finished, waited_for=waited_for)

    assert cut(17, 0) is None
    assert cut(18, 0) == cut(300, 0) == cut(300, 0, finished=True) == Cut(15, last=False)
    assert cut(300, 0, finished=True, waited_for=False) == Cut(300, last=True)
    assert cut(32, 0, finished=True) == Cut(32, last=True), "one decode for what is little more than the first hop"
    assert cut(15 + CHUNK_TOKENS + 2, 15) is None
    assert cut(15 + CHUNK_TOKENS + 3, 15) == cut(300, 15) == Cut(40, last=False)
    assert cut(300, 40) == Cut(GROWTH * 40 - 5, last=False)
    assert cut(100, 40) == Cut(90, last=False)
    assert cut(300, 40, finished=True) == Cut(300, last=True)
    assert cut(0, 0, finished=True) == Cut(0, last=True)


def test_a_listener_runs_dry_when_what_is_out_has_been_played() -> None:
    listener = Listener()
    listener.expect(3.0)
    assert listener.dry(10.0) is None
    listener.hear(10.0, 0.0)
    assert listener.dry(10.0) is None, "silence of no length is no first audio"
    listener.hear(10.0, 0.5)
    assert listener.dry(10.1) == 10.5
    listener.hear(10.2, 1.0)
    assert listener.dry(10.3) == 11.5
    listener.hear(12.0, 1.0)
    assert listener.dry(12.0) == 13.0, "after a stall playback goes on with the new piece"


def test_a_later_segment_is_due_when_those_before_it_have_been_played() -> None:
    first = Listener()
    second = Listener(first)
    third = Listener(second)
    assert [listener.waits for listener in (first, second, third)] == [True, False, False]
    first.expect(2.0)
    second.expect(4.0)
    assert third.dry(10.0) == 16.0, "if the first piece came now"
    first.hear(11.0, 0.5)
    assert (second.dry(11.0), third.dry(11.0)) == (13.0, 17.0)
    second.hear(11.5, 4.0)
    assert second.dry(11.5) == third.dry(11.5) == 17.0


def test_what_is_due_when() -> None:
    listener = Listener()
    assert due(20.0, 19.0, listener) == 19.0 - HEAD_START
    assert due(20.0, 19.0, None) == 19.0 + PATIENCE
    listener.hear(20.0, 0.3)
    assert due(20.1, 19.0, listener) == 20.3


def test_costs_are_fitted_to_the_last_calls(cost: CostEstimate) -> None:
    assert CostEstimate().seconds(1000) == 0.0
    assert cost.seconds(1000) == pytest.approx(CALL + FRAME * 1000)
    for _ in range(100):
        cost.learn(500, 0.1)
        cost.learn(1000, 0.15)
    assert cost.seconds(2000) == pytest.approx(0.25, rel=0.01)


def test_equal_calls_and_costs_that_fall_with_length_are_no_trouble() -> None:
    cost = CostEstimate()
    for _ in range(5):
        cost.learn(500, 0.1)
    assert cost.seconds(500) == pytest.approx(0.1)
    assert 0.0 <= cost.seconds(0) <= cost.seconds(1000)
    cost.learn(1000, 0.01)
    assert 0.0 <= cost.seconds(0) <= cost.seconds(1000)


def test_first_audio_is_not_held_up_by_what_can_wait(cost: CostEstimate) -> None:
    jobs = [Job(12.0, 800, last=True), Job(9.99, 300, last=False), Job(9.98, 300, last=False)]
    assert plan(10.0, jobs, cost, 16, SHORT_CALL) == Plan([2, 1], None)


@pytest.mark.parametrize(("stalled_since", "goes_first"), [(9.0, "first audio"), (9.0 - HEAD_START, "later audio")])
def test_first_audio_goes_first_unless_somebody_has_stalled_for_long(
    cost: CostEstimate, stalled_since: float, goes_first: str
) -> None:
    listener = Listener()
    listener.hear(stalled_since - 1.0, 1.0)
    jobs = {
        "first audio": Job(due(10.0, 9.5, Listener()), 300, last=False),
        "later audio": Job(due(10.0, 1.0, listener), 700, last=True),
    }
    [index] = plan(10.0, list(jobs.values()), cost, 1, SHORT_CALL).batch
    assert list(jobs)[index] == goes_first


def test_an_unfinished_hop_waits_for_its_deadline(cost: CostEstimate) -> None:
    jobs = [Job(11.0, 500, last=False), Job(12.0, 500, last=False)]
    batch, look_again = plan(10.0, jobs, cost, 16, SHORT_CALL)
    assert batch == []
    assert look_again == pytest.approx(11.0 - MARGIN - CALL - FRAME * 500)
    assert plan(look_again or 0.0, jobs, cost, 16, SHORT_CALL).batch == [0]


def test_an_idle_device_does_what_is_finished(cost: CostEstimate) -> None:
    jobs = [Job(14.0, 800, last=True), Job(11.0, 500, last=False), Job(13.0, 800, last=True)]
    assert plan(10.0, jobs, cost, 16, SHORT_CALL).batch == [2, 0]
    assert plan(10.0, [], cost, 16, SHORT_CALL) == Plan([], None)


def test_what_is_finished_fills_up_an_urgent_call(cost: CostEstimate) -> None:
    jobs = [Job(10.1, 500, last=False), Job(14.0, 800, last=True)]
    assert plan(10.0, jobs, cost, 16, SHORT_CALL).batch == [0, 1]


def test_calls_are_as_long_as_they_may_be(cost: CostEstimate) -> None:
    jobs = [Job(9.0, 760, last=True)] * 30
    short, long = (plan(10.0, jobs, cost, 64, seconds).batch for seconds in (SHORT_CALL, LONG_CALL))
    assert len(short) == int((SHORT_CALL - CALL) / FRAME / 760)
    assert len(long) == int((LONG_CALL - CALL) / FRAME / 760)
    assert len(plan(10.0, jobs, cost, 3, LONG_CALL).batch) == 3
    assert len(plan(10.0, [Job(9.0, 10**6, last=True)] * 2, cost, 64, LONG_CALL).batch) == 1, "one is always done"


# Simulated: nothing below was measured


def no_stall(run: SimulatedRun) -> bool:
    return all(stream.stalled == 0 for stream in run.streams)


SHARED = SimulatedDevice(share=0.84)  # with a language model that has the rest


@pytest.mark.parametrize(("count", "rate", "first_hop"), [(1, 370, 15), (100, 250, 15), (150, 240, 15), (250, 200, 25)])
def test_listeners_hear_no_stall_and_soon_while_the_device_keeps_up(count: int, rate: float, first_hop: int) -> None:
    run = listen(count, rate, 30.0, first_hop, SHARED)
    assert len(run.streams) > 2 * count
    assert no_stall(run)
    assert max(stream.waited for stream in run.streams if stream.pieces) < 2 * SHORT_CALL


def test_callers_who_ask_again_at_once_hear_no_stall() -> None:
    run = listen(32, 218, 30.0, 15, SHARED, impatient=True)
    assert len(run.streams) > 20 * 32
    assert no_stall(run)


@pytest.mark.parametrize(
    ("rate", "first_hop", "most"), [(500, 25, 1.41), (588, 25, 1.41), (350, 15, 1.9), (150, 15, 2.5)]
)
def test_little_is_computed_twice(rate: float, first_hop: int, most: float) -> None:
    run = listen(16, rate, 30.0, first_hop)
    assert 1.0 < run.work < most


def test_a_burst_of_requests_is_heard_in_a_call_or_two() -> None:
    known = [SimulatedStream(0.1 * index, 300) for index in range(20)]  # the schedule knows its device
    run = simulate([*known, *(SimulatedStream(5.0, 300) for _ in range(32))])
    assert max(stream.waited for stream in run.streams) < 8 * SHORT_CALL
    assert no_stall(run)


def test_whole_utterances_and_listeners_do_not_starve_each_other() -> None:
    draws = random.Random(1)
    listened_to = [SimulatedStream(draws.uniform(0, 20), 150) for _ in range(240)]
    whole = [SimulatedStream(draws.uniform(0, 20), 150, streaming=False) for _ in range(400)]
    run = simulate([*listened_to, *whole])
    assert all(stream.done for stream in run.streams)
    assert no_stall(run)
    assert max(stream.waited for stream in listened_to) < 3 * SHORT_CALL
    assert max(stream.waited for stream in whole) < PATIENCE


def test_a_flood_of_first_hops_does_not_starve_what_was_there() -> None:
    """Twice as many as the device can do, for 20 s: without a bound the others would have to wait for 40 s."""
    flood = [SimulatedStream(2 + index / 40, 150, tokens=30) for index in range(800)]
    early, whole = SimulatedStream(0.0, 150, tokens=500), SimulatedStream(1.0, 150, streaming=False)
    simulate([early, whole, *flood], device=SimulatedDevice(solve=0.01, frame=1.4e-4, pair=0.0))
    assert max(stream.waited for stream in flood) > 15
    assert early.stalled < 20
    assert whole.waited < 20


def test_calls_are_large_when_nobody_listens() -> None:
    def again(stream: SimulatedStream) -> SimulatedStream:
        return SimulatedStream(stream.pieces[-1][0] + 0.03, 300, streaming=False)

    starts = random.Random(2)
    run = simulate([SimulatedStream(starts.uniform(0, 1), 300, streaming=False) for _ in range(128)], 20, follow=again)
    done = sum(stream.done for stream in run.streams)
    device = SimulatedDevice()
    alone = device.seconds([run.streams[0].frames(250)], spoken=500)
    assert done / 20 > 0.8 / (alone - device.solve + device.solve / 9), "as if most calls were of nine rows"


def test_segments_of_one_text_are_decoded_once_when_tokens_come_fast() -> None:
    first = SimulatedStream(0.0, 300)
    second = SimulatedStream(0.0, 300, previous=first)
    third = SimulatedStream(0.0, 300, previous=second)
    run = simulate([first, second, third])
    assert [len(stream.pieces) for stream in (second, third)] == [1, 1]
    assert no_stall(run)
