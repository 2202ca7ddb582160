"""Drives schedulers of vLLM through a random history of requests, without a model."""

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.llm.engine_arguments import EngineOptions, engine_arguments
from vllm_cosyvoice.llm.repetition_aware_sampling import extra_args
from vllm_cosyvoice.llm.scheduler import SENT_AT_ONCE, STEPS_AT_ONCE, MultiStepOutput, SpeechScheduler
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import END_OF_SPEECH

KINDS: dict[str, type[Scheduler]] = {"vLLM's": AsyncScheduler, "ours": SpeechScheduler}
BLOCK = 16  # tokens
LONGEST = 512  # tokens of a request
AT_FIRST = 53  # tokens that are sent one by one


def engine_config(model: Path, *, requests: int, tokens_per_step: int) -> VllmConfig:
    """vLLM's configuration for at most `requests` at once, with prompts in parts as on a GPU."""
    options = EngineOptions(max_total_token_num=4 * LONGEST, max_num_seqs=requests)
    arguments = engine_arguments(
        open_model(model),
        options,
        LONGEST,
        enable_chunked_prefill=True,
        max_num_batched_tokens=tokens_per_step,
        block_size=BLOCK,
        additional_config={STEPS_AT_ONCE: 1},
    )
    return arguments.create_engine_config()


def make_scheduler(kind: type[Scheduler], config: VllmConfig, *, blocks: int, second_runner: bool) -> Scheduler:
    """A scheduler with room for `blocks` - 1 blocks, for vLLM's second model runner (a GPU's) or its first."""
    init_none_hash(sha256)
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)
    cache = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    scheduler = kind(config, cache, StructuredOutputManager(config), block_size=BLOCK)
    scheduler.use_v2_model_runner = second_runner
    return scheduler


def steps_of(plan: SchedulerOutput) -> int:
    """How many steps a plan of either scheduler has."""
    return plan.steps if isinstance(plan, MultiStepOutput) else 1


@dataclass(frozen=True)
class Arrival:
    """A request that arrives."""

    name: str
    prompt: list[int]
    params: SamplingParams

    @staticmethod
    def of(name: str, prompt: list[int], max_tokens: int) -> "Arrival":
        params = SamplingParams(
            max_tokens=max_tokens,
            stop_token_ids=[END_OF_SPEECH],
            detokenize=False,
            extra_args={SENT_AT_ONCE: AT_FIRST, **extra_args(SamplingOptions(seed=0), [], 0)},
        )
        return Arrival(name, prompt, params)


class Engine:
    """The part of vLLM's engine around a scheduler: steps in flight, and a model that is a function of the position."""

    def __init__(self, scheduler: Scheduler, ends_at: int = 0) -> None:
        """`ends_at`: one of so many tokens is the end of speech; 0: none."""
        self.scheduler = scheduler
        self.prompts: dict[str, list[int]] = {}
        self.sent: dict[str, list[int]] = {}  # tokens by request
        self.messages = 0
        self.reasons: dict[str, Any] = {}  # why a request finished
        self._ends_at = ends_at
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._in_flight: deque[tuple[SchedulerOutput, ModelRunnerOutput]] = deque()
        self._worker = Worker()

    def add(self, arrival: Arrival) -> None:
        request = Request(
            request_id=arrival.name,
            prompt_token_ids=list(arrival.prompt),
            sampling_params=arrival.params,
            pooling_params=None,
            arrival_time=0.0,
            block_hasher=self._hasher,
        )
        self.prompts[arrival.name], self.sent[arrival.name] = arrival.prompt, []
        self.scheduler.add_request(request)

    def abort(self, names: Sequence[str]) -> None:
        self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED)

    def plan(self) -> SchedulerOutput:
        """Plan a step and begin it."""
        step = self.scheduler.schedule()
        self.begin(step)
        return step

    def begin(self, step: SchedulerOutput) -> None:
        """Run the model."""
        names = list(step.num_scheduled_tokens)
        tokens = [self._tokens(self.scheduler.requests[name], steps_of(step)) for name in names]
        if self.scheduler.use_v2_model_runner:
            self._worker.run(step, dict(zip(names, tokens, strict=True)))
        places = {name: place for place, name in enumerate(names)}
        if names:
            output = ModelRunnerOutput(req_ids=names, req_id_to_index=places, sampled_token_ids=tokens)
            self._in_flight.append((step, output))

    def finish_step(self) -> SchedulerOutput:
        """Finish the oldest step in flight, and return it."""
        step, output = self.output()
        self.receive(self.scheduler.update_from_output(step, output))
        return step

    def run(self) -> list[SchedulerOutput]:
        """Go on until all requests have finished, one plan at a time, and return the plans."""
        plans = []
        while self.scheduler.has_requests():
            plans.append(self.plan())
            if self.in_flight:
                self.finish_step()
        return plans

    def output(self) -> tuple[SchedulerOutput, ModelRunnerOutput]:
        """The oldest step in flight, and what the model generated."""
        return self._in_flight.popleft()

    def receive(self, clients: dict[int, EngineCoreOutputs]) -> None:
        """Take what is sent to the clients."""
        for message in (message for of_client in clients.values() for message in of_client.outputs):
            self.messages += 1
            self.sent[message.request_id] += message.new_token_ids
            if message.finished:
                self.reasons[message.request_id] = message.finish_reason

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def _tokens(self, request: Request, steps: int) -> list[int]:
        last = request.num_computed_tokens
        return [] if request.is_prefill_chunk else [self._token(request, last - steps + 1 + n) for n in range(steps)]

    def _token(self, request: Request, position: int) -> int:
        drawn = zlib.crc32(f"{request.request_id} {position}".encode())
        return END_OF_SPEECH if self._ends_at and drawn % self._ends_at == 0 else drawn % 6561


class Worker:
    """What vLLM's second model runner keeps: tokens and blocks of each request, and what is where in the KV cache.

    A place must still hold what was written there for as long as a request reads it.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, list[int]] = {}
        self._blocks: dict[str, list[int]] = {}
        self._computed: dict[str, int] = {}
        self._cache: dict[tuple[int, int], int] = {}  # token, by block and place

    def run(self, plan: SchedulerOutput, generated: dict[str, list[int]]) -> None:
        for new in plan.scheduled_new_reqs:
            self._tokens[new.req_id] = list(new.prefill_token_ids or ())
            [self._blocks[new.req_id]] = map(list, new.block_ids)
            self._computed[new.req_id] = new.num_computed_tokens
        cached = plan.scheduled_cached_reqs
        for name, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            self._blocks[name] += blocks[0] if blocks else []
        steps = steps_of(plan)
        for name, count in plan.num_scheduled_tokens.items():
            for step in range(steps):
                self._compute(name, count // steps)
                self._tokens[name] += generated[name][step : step + 1]

    def _compute(self, name: str, count: int) -> None:
        tokens, blocks, computed = self._tokens[name], self._blocks[name], self._computed[name]
        self._computed[name] += count
        for position in range(computed + count):
            place = blocks[position // BLOCK], position % BLOCK
            if position >= computed:
                self._cache[place] = tokens[position]
            assert self._cache[place] == tokens[position], (name, position)


def state(scheduler: Scheduler) -> dict[str, Any]:
    """All that later steps depend on."""
    pool = scheduler.kv_cache_manager.block_pool
    return {
        "running": [request.request_id for request in scheduler.running],
        "waiting": [request.request_id for request in scheduler.waiting],
        "requests": {name: _request_state(scheduler, request) for name, request in scheduler.requests.items()},
        "free blocks": [block.block_id for block in pool.free_block_queue.get_all_free_blocks()],
        "cached blocks": [block.block_hash for block in pool.blocks],
        "step": scheduler.current_step,
        "finished": scheduler.finished_req_ids,
        "scheduled": scheduler.prev_step_scheduled_req_ids,
    }


def _request_state(scheduler: Scheduler, request: Request) -> dict[str, Any]:
    names = (
        *("status", "num_computed_tokens", "num_output_placeholders", "num_in_flight_tokens", "num_preemptions"),
        *("is_prefill_chunk", "next_decode_eligible_step", "spec_token_ids"),
    )
    values = {name: getattr(request, name) for name in names}
    blocks = scheduler.kv_cache_manager.get_block_ids(request.request_id)
    return {**values, "tokens": list(request.output_token_ids), "blocks": blocks}


class Arrivals:
    """Random requests. Many begin like another, or go on where another ended, as the turns of a text stream do."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._beginnings = [self._ids(length) for length in (16, 40, 100)]
        self._count = 0

    def draw(self, ended: Sequence[list[int]]) -> Arrival:
        """`ended`: prompts and tokens of requests that have ended."""
        self._count += 1
        earlier = [ids for ids in ended if len(ids) < LONGEST // 2]
        turn = earlier and self._random.random() < 0.3
        ids = self._random.choice(earlier if turn else self._beginnings)
        new = self._ids(5 if turn else self._random.choice([1, 5, 8, 24, 60]))
        return Arrival.of(f"request {self._count}", ids + new, self._random.choice([1, 2, 15, 33, 90, 200]))

    def _ids(self, count: int) -> list[int]:
        return [self._random.randrange(7000) for _ in range(count)]
