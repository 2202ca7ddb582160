"""Drives the shipped logits processor as vLLM's model runner does, without an engine."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate

from vllm_cosyvoice.llm.repetition_aware_sampling import RepetitionAwareSampling, extra_args
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import FILL, HEAD_SIZE, UNUSED

ROWS = 500  # of the largest batch


@cache
def _config() -> VllmConfig:
    config = VllmConfig()
    config.scheduler_config.max_num_seqs = ROWS
    return config


def processor() -> RepetitionAwareSampling:
    return RepetitionAwareSampling(_config(), torch.device("cpu"), is_pin_memory=False)


def added(
    row: int, options: SamplingOptions, generated: list[int], earlier: Sequence[int] = (), min_tokens: int = 0
) -> tuple[int, SamplingParams, list[int] | None, list[int]]:
    """A new request for `BatchUpdate.added`; vLLM appends to `generated` as tokens come."""
    return row, SamplingParams(extra_args=extra_args(options, earlier, min_tokens)), None, generated


def tokens(sampling: RepetitionAwareSampling, logits: torch.Tensor) -> list[int]:
    """What vLLM's sampler is left to draw for each row."""
    one_hot = sampling.apply(logits.clone())
    assert (one_hot == 0.0).sum(1).eq(1).all()
    assert (one_hot == -torch.inf).sum(1).eq(HEAD_SIZE - 1).all()
    return one_hot.argmax(1).tolist()


def next_tokens(
    logits: torch.Tensor, options: Sequence[SamplingOptions], generated: Sequence[Sequence[int]]
) -> list[int]:
    """The next token of each row, for requests that have generated these tokens."""
    sampling = processor()
    new = [added(row, option, list(past)) for row, (option, past) in enumerate(zip(options, generated, strict=True))]
    sampling.update_state(BatchUpdate(batch_size=len(new), removed=[], added=new, moved=[]))
    return tokens(sampling, logits)


def counts(logits: torch.Tensor, options: SamplingOptions, generated: Sequence[int], draws: int) -> np.ndarray:
    """How often each token comes next, float64 [6564], in `draws` requests of different seeds; logits: [6564]."""
    drawn: list[int] = []
    for first in range(0, draws, ROWS):
        seeds = range(first, min(first + ROWS, draws))
        rows = [replace(options, seed=seed) for seed in seeds]
        drawn += next_tokens(logits.expand(len(rows), -1), rows, [generated] * len(rows))
    return np.bincount(drawn, minlength=HEAD_SIZE).astype(np.float64)


def by_definition(logits: torch.Tensor, options: SamplingOptions, generated: Sequence[int]) -> torch.Tensor:
    """The two draws written out token by token in float64, [6564]."""
    logits = logits.double() / options.temperature
    logits[[UNUSED, FILL]] = -torch.inf
    q = logits.softmax(0)
    nucleus: dict[int, float] = {}
    for token in q.argsort(descending=True).tolist():
        if sum(nucleus.values()) >= options.top_p or len(nucleus) >= options.top_k:
            break
        nucleus[token] = q[token].item()
    drawn = torch.zeros(HEAD_SIZE, dtype=torch.float64)
    for token, weight in nucleus.items():
        chance = weight / sum(nucleus.values())
        if options.repetition_aware and token in generated[-10:]:
            others = logits.clone()
            others[token] = -torch.inf
            drawn += chance * others.softmax(0)
        else:
            drawn[token] += chance
    return drawn
