"""Multi-step decoding: a GPU generates several tokens of each request before the host plans again.

Planning and preparing a step takes vLLM's host longer than the GPU takes for it. So `SpeechScheduler` plans several
steps at once where nothing else happens. vLLM's model runner prepares and runs the first. The sampler then runs the
others, which only replay the runner's CUDA graph for inputs that the GPU itself moves on by one token.
"""

from typing import Any

import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu_worker import Worker

from vllm_cosyvoice.llm import token_append_kernel
from vllm_cosyvoice.llm.scheduler import MultiStepOutput


class FurtherSteps:
    """The steps after the first of a plan, for the requests that are in the input buffers of vLLM's model runner."""

    def __init__(self, runner: Any, count: int) -> None:  # noqa: ANN401 - vLLM's model runner, which varies by version
        self.count = count
        self._runner = runner

    def next_logits(self, tokens: torch.Tensor, batch: InputBatch) -> torch.Tensor:
        """Append `tokens`, [requests, 1], to the requests of `batch`, and predict the next: logits, [rows, 6564]."""
        token_append_kernel.append(
            tokens,
            batch.idx_mapping,
            batch.input_ids,
            batch.positions,
            batch.seq_lens,
            self._runner.req_states.all_token_ids.gpu,
        )
        self._runner.block_tables.compute_slot_mappings(
            batch.idx_mapping,
            batch.query_start_loc,
            batch.positions,
            num_tokens_padded=batch.num_tokens_after_padding,
        )
        hidden = self._run(batch)[batch.logits_indices]
        logits: torch.Tensor = self._runner.model.compute_logits(hidden)
        return logits

    def _run(self, batch: InputBatch) -> torch.Tensor:
        """Run the model on the input buffers: hidden states, [requests after padding, width]."""
        graphs = self._runner.cudagraph_manager
        graph = graphs.dispatch(batch.num_reqs, batch.num_tokens, 1, 0)  # 1 token of each request, no LoRA
        hidden: torch.Tensor = graphs.run_fullgraph(graph)
        return hidden


class MultiStepWorker:
    """Mixin for a worker of vLLM: it runs plans of several steps."""

    further_steps: type[FurtherSteps] = FurtherSteps
    model_runner: Any

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | AsyncModelRunnerOutput | None:
        """Run the first step, and leave the others to the sampler, which runs next."""
        if isinstance(scheduler_output, MultiStepOutput) and scheduler_output.steps > 1:
            count = scheduler_output.steps - 1
            self.model_runner.sampler.further_steps = self.further_steps(self.model_runner, count)
            scheduler_output = scheduler_output.first_step()
        output: ModelRunnerOutput | AsyncModelRunnerOutput | None
        output = super().execute_model(scheduler_output)  # type: ignore[misc]  # the worker's
        return output


class SpeechWorker(MultiStepWorker, Worker):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """vLLM's worker for a GPU."""

    def compile_or_warm_up_model(self) -> Any:  # noqa: ANN401 - varies by version
        """Compile our kernels in parallel, before vLLM captures steps with them."""
        self.model_runner.model.compile_steps()
        return super().compile_or_warm_up_model()
