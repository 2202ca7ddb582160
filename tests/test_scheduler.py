"""Our scheduler and vLLM's live through the same random histories: they must plan the same steps.

Where ours plans several steps at once, the requests must get the same tokens.

The histories have more requests than may run at once, shared beginnings, prompts that are read in parts, too few blocks
for all, aborts, and steps that are planned before the last one's tokens are known.

No test here needs a model or compiled code. To run them with another version of vLLM, put the Python files of its wheel
first on PYTHONPATH, with a `vllm-VERSION+cpu.dist-info/METADATA` (name and version) beside them, which makes vLLM
choose the CPU.
"""

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput

from benchmarks import scheduler as benchmark
from tests.scheduler_history import AT_FIRST, Arrival, Arrivals, Engine, engine_config, make_scheduler, state, steps_of
from vllm_cosyvoice.llm.scheduler import GROUP, STEPS_AT_ONCE, MultiStepOutput, SpeechScheduler

STEPS = 500
AT_ONCE = 8  # requests


class CountingScheduler(SpeechScheduler):
    """Counts the steps that it plans by itself."""

    short = 0
    while_others_wait = 0

    def _decode_steps(self, requests: Any) -> SchedulerOutput:
        self.short += 1
        self.while_others_wait += bool(self.waiting)
        return super()._decode_steps(requests)


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> VllmConfig:
    return engine_config(tiny_model, requests=AT_ONCE, tokens_per_step=64)


@dataclass
class Pair:
    """The same history with both schedulers."""

    theirs: Engine
    ours: Engine

    @staticmethod
    def of(config: VllmConfig, *, blocks: int, second_runner: bool, ends_at: int = 0) -> "Pair":
        engines = [
            Engine(make_scheduler(kind, config, blocks=blocks, second_runner=second_runner), ends_at)
            for kind in (AsyncScheduler, CountingScheduler)
        ]
        return Pair(*engines)

    @property
    def both(self) -> tuple[Engine, Engine]:
        return self.theirs, self.ours

    def add(self, arrival: Arrival) -> None:
        for engine in self.both:
            engine.add(arrival)

    def abort(self, *names: str) -> None:
        for engine in self.both:
            engine.abort(names)

    def plan(self) -> SchedulerOutput:
        theirs, ours = (engine.plan() for engine in self.both)
        for field in fields(theirs):
            if field.name != "num_common_prefix_blocks":  # which only vLLM 0.26 fills, for its first model runner
                assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
        self.compare()
        return ours

    def finish_step(self) -> None:
        _, step = (engine.finish_step() for engine in self.both)
        self.compare()
        for name in step.preempted_req_ids or ():
            assert self.ours.sent[name] == self.theirs.sent[name], "nothing is held back while a request waits"

    def run(self, depth: int) -> None:
        """Go on until all requests have finished, with `depth` steps in flight."""
        while self.ours.scheduler.has_requests() or self.ours.in_flight:
            step = self.plan()
            if self.ours.in_flight and (self.ours.in_flight == depth or not step.num_scheduled_tokens):
                self.finish_step()

    def compare(self) -> None:
        theirs, ours = (state(engine.scheduler) for engine in self.both)
        for name, value in theirs.items():
            assert ours[name] == value, name
        assert self.ours.reasons == self.theirs.reasons
        for name, tokens in self.theirs.sent.items():
            sent = self.ours.sent[name]
            if name in self.ours.reasons or len(tokens) <= AT_FIRST:
                assert sent == tokens
            else:
                assert sent == tokens[: len(sent)]
                assert len(tokens) - len(sent) < GROUP


@pytest.mark.parametrize("second_runner", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("blocks", [26, 120])
def test_the_same_steps_are_planned(config: VllmConfig, blocks: int, depth: int, second_runner: bool) -> None:
    random = Random(f"{blocks} {depth}")
    arrivals = Arrivals(random)
    pair = Pair.of(config, blocks=blocks, second_runner=second_runner, ends_at=150)
    preempted = cached = aborted = 0
    for number in range(STEPS):
        if random.random() < (0.25 if number % 200 < 120 else 0.0):  # at times nothing arrives
            ended = pair.ours.reasons
            pair.add(arrivals.draw([pair.ours.prompts[name] + pair.ours.sent[name] for name in ended]))
        if random.random() < 0.02 and (live := list(pair.ours.scheduler.requests)):
            pair.abort(random.choice(live))
            aborted += 1
        step = pair.plan()
        preempted += len(step.preempted_req_ids or ())
        cached += sum(new.num_computed_tokens > 0 for new in step.scheduled_new_reqs)
        if pair.ours.in_flight and (pair.ours.in_flight == depth or not step.num_scheduled_tokens):
            pair.finish_step()
    pair.run(depth)

    assert pair.ours.scheduler.short > STEPS / 10
    assert (pair.ours.scheduler.while_others_wait > 10) == (blocks == 120)
    assert (preempted > 5) == (blocks == 26)
    assert cached > 5
    assert aborted > 3
    assert pair.ours.messages < 0.9 * pair.theirs.messages
    assert pair.ours.scheduler._unsent == {}
    reasons = {reason.name for reason in pair.ours.reasons.values()}
    assert reasons == {"STOP", "LENGTH"}


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("blocks", [26, 120])
def test_several_steps_at_once_give_the_same_tokens(config: VllmConfig, blocks: int, depth: int) -> None:
    config.additional_config[STEPS_AT_ONCE] = 5
    ours = Engine(make_scheduler(SpeechScheduler, config, blocks=blocks, second_runner=True), ends_at=150)
    config.additional_config[STEPS_AT_ONCE] = 1
    random = Random(f"{blocks} {depth}")
    arrivals = Arrivals(random)
    arrived: dict[str, Arrival] = {}
    aborted: set[str] = set()
    counts: Counter[int] = Counter()
    preempted = number = 0
    while number < STEPS or ours.scheduler.has_requests() or ours.in_flight:
        number += 1
        if number < STEPS and random.random() < (0.25 if number % 200 < 120 else 0.0):
            arrival = arrivals.draw([ours.prompts[name] + ours.sent[name] for name in ours.reasons])
            arrived[arrival.name] = arrival
            ours.add(arrival)
        if random.random() < 0.02 and (live := list(ours.scheduler.requests)):
            aborted.add(random.choice(live))
            ours.abort([*aborted])
        plan = ours.plan()
        preempted += len(plan.preempted_req_ids or ())
        counts[steps_of(plan)] += bool(plan.num_scheduled_tokens)
        for request in ours.scheduler.running:
            most = request.num_prompt_tokens + request.max_tokens
            assert request.num_tokens + request.num_output_placeholders <= most + (depth - 1)
        if ours.in_flight and (ours.in_flight == depth or not plan.num_scheduled_tokens):
            ours.finish_step()

    assert counts[5] > 10
    assert sum(counts[steps] for steps in (2, 3, 4)) > 2, "as many as the shortest request may still get"
    assert (preempted > 5) == (blocks == 26)
    for name in arrived.keys() - aborted:
        alone = Engine(make_scheduler(AsyncScheduler, config, blocks=120, second_runner=True), ends_at=150)
        alone.add(arrived[name])
        alone.run()
        assert ours.sent[name] == alone.sent[name]
        assert ours.reasons[name] == alone.reasons[name]
    pool = ours.scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == blocks - 1, "vLLM keeps one for itself"


def test_requests_that_vllm_samples_get_one_step_at_a_time(config: VllmConfig) -> None:
    config.additional_config[STEPS_AT_ONCE] = 5
    ours = Engine(make_scheduler(SpeechScheduler, config, blocks=120, second_runner=True))
    config.additional_config[STEPS_AT_ONCE] = 1
    ours.add(Arrival("request", [1, 2, 3], SamplingParams(max_tokens=20, detokenize=False)))
    assert {plan.steps for plan in ours.run() if isinstance(plan, MultiStepOutput)} == {1}
    assert len(ours.sent["request"]) == 20


def test_more_requests_than_fit_in_a_graph_get_one_step_at_a_time(config: VllmConfig) -> None:
    config.additional_config[STEPS_AT_ONCE] = 5
    config.compilation_config.cudagraph_capture_sizes = [1, 2]
    ours = Engine(make_scheduler(SpeechScheduler, config, blocks=120, second_runner=True))
    config.additional_config[STEPS_AT_ONCE] = 1
    config.compilation_config.cudagraph_capture_sizes = []
    for number in range(3):
        ours.add(Arrival.of(f"request {number}", [number] * 20, 10 + 10 * number))
    plans = [(len(plan.num_scheduled_tokens), plan.steps) for plan in ours.run() if isinstance(plan, MultiStepOutput)]
    assert {steps for requests, steps in plans if requests == 3} == {1}
    assert {steps for requests, steps in plans if requests == 2} == {5}


def test_the_benchmark_compares_both(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--requests", "2", "--rounds", "1"])
    rows = [row.split("|")[2].strip() for row in capsys.readouterr().out.splitlines() if row.startswith("| ")]
    assert rows == ["scheduler", "vLLM's", "ours"]
