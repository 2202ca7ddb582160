"""Speech tokens by vLLM's second model runner on a CPU: `TRITON_INTERPRET=1 python -m tests.second_model_runner MODEL`.

A GPU is what this runner is for. Where there is none, Triton's interpreter runs its kernels and ours. Prints, as JSON,
the tokens of REQUESTS all at once, and those of a text stream. Its log has a line for each step that ran without a plan
of its own.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import interpreter  # noqa: F401 - lets vLLM use the interpreter
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment

if TYPE_CHECKING:
    from vllm_cosyvoice.llm.multi_step import MultiStepWorker

STEPS = 3  # at once: not a divisor of the length
CAPACITY = 160  # tokens: too few for all requests, so one waits or is set aside
LENGTH = 14  # tokens: more than repetition-aware sampling looks back on
REQUESTS = [
    SamplingOptions(seed=1, min_tokens=LENGTH, max_tokens=LENGTH),
    SamplingOptions(temperature=0.0, min_tokens=LENGTH, max_tokens=LENGTH),
    SamplingOptions(seed=2, temperature=0.5, top_p=0.95, top_k=200, max_tokens=LENGTH),
    SamplingOptions(seed=3, top_k=1, repetition_aware=False, min_tokens=LENGTH, max_tokens=LENGTH),
]


def segment(number: int) -> Segment:
    """Another prompt for each number."""
    return Segment(np.random.default_rng(number).integers(0, 6561, 20).tolist(), 1, 2, 20)


async def text() -> AsyncIterator[list[int]]:
    """The text of a stream of two turns and an end."""
    for token in range(12):
        yield [token]


def worker() -> "type[MultiStepWorker]":
    """vLLM's worker for a CPU, with plans of several steps. It runs the model where a GPU replays a graph."""
    import torch
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import set_forward_context
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu.attn_utils import build_slot_mappings_by_layer
    from vllm.v1.worker.gpu.input_batch import InputBatch

    from vllm_cosyvoice.llm.multi_step import FurtherSteps, MultiStepWorker

    class WithoutGraphs(FurtherSteps):
        def _run(self, batch: InputBatch) -> torch.Tensor:
            runner = self._runner
            tables, slots = runner.prepare_attn(batch)
            batch.seq_lens_cpu_upper_bound = batch.seq_lens.clone()
            attention = runner.model_state.prepare_attn(
                batch, CUDAGraphMode.NONE, tables, slots, runner.attn_groups, runner.kv_cache_config
            )
            by_layer = build_slot_mappings_by_layer(slots, runner.kv_cache_config)
            with set_forward_context(
                attention, runner.vllm_config, num_tokens=batch.num_tokens_after_padding, slot_mapping=by_layer
            ):
                hidden: torch.Tensor = runner.model(input_ids=batch.input_ids, positions=batch.positions)
            print("further step", file=sys.stderr)
            return hidden

    class Worker(MultiStepWorker, CPUWorker):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
        further_steps = WithoutGraphs

    return Worker


def __getattr__(name: str) -> object:
    if name == "Worker":  # vLLM imports it by this name
        return worker()
    raise AttributeError(name)


async def main(model: Path) -> None:
    """Generate with an engine of that runner."""
    from vllm_cosyvoice.checkpoint import open_model
    from vllm_cosyvoice.llm import generator as module
    from vllm_cosyvoice.llm.engine_arguments import EngineOptions, engine_arguments
    from vllm_cosyvoice.llm.scheduler import STEPS_AT_ONCE

    def second_runner(*arguments: Any, **others: Any) -> object:
        made = engine_arguments(*arguments, **others)
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
        return made

    module.engine_arguments = second_runner  # type: ignore[attr-defined]  # the name it imported
    options = EngineOptions(max_total_token_num=CAPACITY, max_num_seqs=4)
    generator = module.SpeechTokenGenerator(
        open_model(model),
        options,
        fork=True,
        logits_processors=None,
        worker_cls="tests.second_model_runner.Worker",
        additional_config={STEPS_AT_ONCE: STEPS},
    )

    async def speak(number: int) -> list[int]:
        pieces = generator.generate(f"request {number}", segment(number), REQUESTS[number])
        return [token async for piece in pieces for token in piece]

    try:
        together = await asyncio.gather(*(speak(number) for number in range(len(REQUESTS))))
        pieces = generator.generate_from_text_stream("stream", [1, 2, 3], [5, 6, 7], text(), REQUESTS[0])
        streamed = [token async for piece in pieces for token in piece]
    finally:
        generator.shutdown()
    print(json.dumps({"together": together, "streamed": streamed}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
