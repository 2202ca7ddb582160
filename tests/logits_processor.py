"""Drives the shipped logits processor as vLLM's model runner does, without an engine."""

from collections.abc import Sequence

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate

from vllm_cosyvoice.repetition_aware_sampling import RepetitionAwareSampling, extra_args
from vllm_cosyvoice.sampling import SamplingOptions


def processor() -> RepetitionAwareSampling:
    return RepetitionAwareSampling(VllmConfig(), torch.device("cpu"), is_pin_memory=False)


def added(
    row: int, options: SamplingOptions, generated: list[int], earlier: Sequence[int] = ()
) -> tuple[int, SamplingParams, list[int] | None, list[int]]:
    """A new request for `BatchUpdate.added`; vLLM appends to `generated` as tokens come."""
    return row, SamplingParams(extra_args=extra_args(options, list(earlier))), None, generated


def probabilities(
    logits: torch.Tensor, options: Sequence[SamplingOptions], generated: Sequence[list[int]]
) -> torch.Tensor:
    """What vLLM's sampler draws from, [rows, 6564], for requests that have generated these tokens."""
    sampling = processor()
    new = [added(row, option, tokens) for row, (option, tokens) in enumerate(zip(options, generated, strict=True))]
    sampling.update_state(BatchUpdate(batch_size=len(new), removed=[], added=new, moved=[]))
    return sampling.apply(logits.clone()).softmax(-1)
