"""vLLM's scheduler, with less work on the host.

In nearly all steps, every request generates its next token and nothing else happens. vLLM's scheduler handles such a
step like any other, and it sends every token by itself, though a decoder waits for a second of speech at a time.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from vllm_cosyvoice.llm.repetition_aware_sampling import asks_for_it

# In `SamplingParams.extra_args`: the number of tokens at the start of a request that are sent as soon as the host has
# them. Later ones are sent in groups of `GROUP`; without this key, none are.
SENT_AT_ONCE = "sent_at_once"
GROUP = 8

# In vLLM's `additional_config`: the most steps that are planned at once, see `multi_step`. New requests wait for them.
# More than one needs CUDA graphs.
STEPS_AT_ONCE = "steps_at_once"
DEFAULT_STEPS = 4


@dataclass
class MultiStepOutput(SchedulerOutput):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """A plan of several steps, in each of which all requests generate a token."""

    steps: int = 1

    def first_step(self) -> SchedulerOutput:
        """The plan of the first step, with the blocks of all."""
        first = copy(self)
        first.num_scheduled_tokens = dict.fromkeys(self.num_scheduled_tokens, 1)
        first.total_num_scheduled_tokens = len(first.num_scheduled_tokens)
        return first


class SpeechScheduler(AsyncScheduler):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """Plans the same steps as `AsyncScheduler`, several at once where it can, and sends tokens in groups.

    `AsyncScheduler` is the base that vLLM requires for asynchronous scheduling.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - vLLM's arguments, which vary by version
        super().__init__(*args, **kwargs)
        groups = self.kv_cache_config.kv_cache_groups
        self._is_plain = (
            len(groups) == 1
            and type(groups[0].kv_cache_spec) is FullAttentionSpec
            and groups[0].kv_cache_spec.block_size == self.block_size
            and self.parallel_config.pipeline_parallel_size == 1
            and self.connector is None
            and self.ec_connector is None
            and self.num_spec_tokens == 0
            and self.max_num_scheduled_tokens >= self.max_num_running_reqs
        )
        self._most_steps, self._most_requests = self._limits_of_the_worker()
        self._unsent: dict[str, list[int]] = {}  # tokens that wait for their group, by request

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Plan the next step, or the next steps."""
        for request_id in self.finished_req_ids:
            self._unsent.pop(request_id, None)  # of aborted requests
        requests = self._requests_that_only_decode() if self._is_plain else []
        return self._decode_steps(requests) if requests else super().schedule(throttle_prefills)

    def _limits_of_the_worker(self) -> tuple[int, int]:
        """The most steps that are planned at once, and for how many requests: `multi_step` replays CUDA graphs."""
        config, graphs = self.vllm_config, self.vllm_config.compilation_config
        has_graphs = self.use_v2_model_runner and graphs.cudagraph_mode.has_full_cudagraphs()
        default = DEFAULT_STEPS if has_graphs and self.parallel_config.world_size == 1 else 1
        steps = int(config.additional_config.get(STEPS_AT_ONCE, default))
        return steps, max(graphs.cudagraph_capture_sizes or (), default=self.max_num_running_reqs)

    def _requests_that_only_decode(self) -> list[Request]:
        """The requests of the next step, if each generates a token, none joins or is put aside; else an empty list."""
        running, waiting = self.get_request_counts()
        if (waiting and running < self.max_num_running_reqs) or self.pause_state != PauseState.UNPAUSED:
            return []
        requests = []
        for request in self.running:
            computed, in_flight = request.num_computed_tokens, request.num_output_placeholders
            if computed + 1 != request.num_tokens + in_flight or computed + 1 >= self.max_model_len:
                return []
            if _tokens_left(request) > 0:  # else the last one is in flight
                requests.append(request)
        return requests if self._there_are_blocks(requests, 1) else []

    def _decode_steps(self, requests: Sequence[Request]) -> SchedulerOutput:
        """Plan steps that generate a token of each of `requests`."""
        steps = self._number_of_steps(requests)
        self.current_step += 1
        self.kv_cache_manager.new_step_starts()
        plan = MultiStepOutput.make_empty()
        plan.steps = steps
        plan.num_scheduled_tokens = {request.request_id: steps for request in requests}
        plan.total_num_scheduled_tokens = steps * len(requests)
        blocks = dict.fromkeys(plan.num_scheduled_tokens, self.kv_cache_manager.empty_kv_cache_blocks)
        for request in requests:
            # A new block is needed for the first token of a block. The last one may put it into the prefix cache.
            place = request.num_computed_tokens % self.block_size
            completes = place == self.block_size - 1 and not request.num_output_placeholders
            if completes or self._new_blocks(request, steps):
                blocks[request.request_id] = self.kv_cache_manager.allocate_slots(request, steps)
        plan.scheduled_cached_reqs = self._make_cached_request_data(requests, [], plan.num_scheduled_tokens, {}, blocks)
        if not self.use_v2_model_runner:
            self.prev_step_scheduled_req_ids.clear()
            self.prev_step_scheduled_req_ids.update(plan.num_scheduled_tokens)
        plan.preempted_req_ids = self.reset_preempted_req_ids
        plan.finished_req_ids = self.finished_req_ids
        plan.new_block_ids_to_zero = self._get_new_block_ids_to_zero()
        self._update_after_schedule(plan)
        for request in requests:
            request.num_output_placeholders += steps - 1  # vLLM counts one for a plan
        return plan

    def _number_of_steps(self, requests: Sequence[Request]) -> int:
        """How many steps to plan at once: no request may end for its length before the last one."""
        if self._most_steps == 1 or len(requests) > self._most_requests:
            return 1
        if not all(asks_for_it(request.sampling_params) for request in requests):
            return 1
        steps = min(
            self._most_steps,
            *(_tokens_left(request) for request in requests),
            *(self.max_model_len - 1 - request.num_computed_tokens for request in requests),
        )
        return steps if self._there_are_blocks(requests, steps) else 1

    def _there_are_blocks(self, requests: Sequence[Request], steps: int) -> bool:
        free: int = self.kv_cache_manager.block_pool.get_num_free_blocks()
        return sum(self._new_blocks(request, steps) for request in requests) <= free

    def _new_blocks(self, request: Request, steps: int) -> int:
        """Number of blocks that `steps` more tokens of `request` need."""
        computed: int = request.num_computed_tokens
        size: int = self.block_size
        return (computed + steps - 1) // size - (computed - 1) // size

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """Add the tokens of a step to their requests. Return what is to be sent to each client."""
        clients = super().update_from_output(scheduler_output, model_runner_output)
        for of_client in clients.values():
            of_client.outputs = [output for output in of_client.outputs if self._is_due(output)]
        for request_id in scheduler_output.preempted_req_ids or ():
            request = self.requests.get(request_id)
            if request and (tokens := self._unsent.pop(request_id, None)):  # it may wait for long
                of_client = clients.setdefault(request.client_index, EngineCoreOutputs())
                of_client.outputs.append(EngineCoreOutput(request_id, tokens))
        return {
            client: of_client
            for client, of_client in clients.items()
            if of_client.outputs or of_client.finished_requests or of_client.scheduler_stats
        }

    def _is_due(self, output: EngineCoreOutput) -> bool:
        """Whether to send `output`, to which this adds the unsent tokens; if not, its tokens wait for their group."""
        unsent = self._unsent.pop(output.request_id, [])
        unsent += output.new_token_ids
        has_only_tokens = not (output.finished or output.new_logprobs or output.events or output.prefill_stats)
        if has_only_tokens and len(unsent) < GROUP and self._is_grouped(self.requests[output.request_id]):
            self._unsent[output.request_id] = unsent
            return False
        output.new_token_ids = unsent
        return True

    def _is_grouped(self, request: Request) -> bool:
        """Whether the newest token of `request` belongs to a group."""
        at_once = (request.sampling_params.extra_args or {}).get(SENT_AT_ONCE)
        return at_once is not None and request.num_output_tokens > at_once


def _tokens_left(request: Request) -> int:
    """How many tokens of `request` are neither generated nor in flight.

    It may be -1: with several steps in flight, vLLM's scheduler plans one token too many, which nobody gets.
    """
    most: int = request.num_prompt_tokens + request.max_tokens
    so_far: int = request.num_tokens + request.num_output_placeholders
    return most - so_far
