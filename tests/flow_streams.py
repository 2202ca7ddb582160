"""Streams at the level of the flow, with and without a memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests import small_networks
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS
from vllm_cosyvoice.decode.utterance import FlowPrompt
from vllm_cosyvoice.flow import DiTFlow, Flow, FlowRow
from vllm_cosyvoice.flow.cache import FlowCache, StreamMemory


def tokens(count: int, seed: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).integers(0, 6561, count).tolist()
    return drawn


def voice(flow: Flow | DiTFlow, count: int, seed: int = 0) -> FlowPrompt:
    embedding = torch.randn(192, generator=torch.Generator().manual_seed(seed)).to(flow.noise)
    mel = small_networks.mel(FRAMES_PER_TOKEN * count, seed).to(flow.noise)
    return FlowPrompt(f"voice {seed}", tokens(count, seed), mel, flow.speaker(embedding))


@dataclass
class Stream:
    """A stream of `flow`, a `Flow`, a `DiTFlow` or a `PackedFlow`; `cache` is None where nothing may be remembered."""

    flow: Any
    prompt: FlowPrompt
    speech: list[int]
    cache: FlowCache | None = None

    def __post_init__(self) -> None:
        prompt = self.prompt
        key = prompt.key, len(prompt.tokens)
        self.memory = StreamMemory(self.cache, key, len(prompt.tokens)) if self.cache else None

    def row(self, spoken: int) -> FlowRow:
        """Up to the end of the speech, or a hop of so many tokens of it."""
        last = spoken == len(self.speech)
        said = self.prompt.tokens + self.speech[: spoken if last else spoken + LOOKAHEAD_TOKENS]
        look_ahead = 0 if last else LOOKAHEAD_TOKENS
        return FlowRow(said, look_ahead, self.prompt.mel, self.prompt.speaker, True, self.memory)

    def hop(self, spoken: int) -> Tensor:
        mel: Tensor = self.flow([self.row(spoken)])[0]
        return mel


def difference(actual: Tensor, whole: Tensor) -> float:
    """Of a mel and the end of another, which is at least as long."""
    assert 0 < len(actual) <= len(whole)
    return float((actual - whole[len(whole) - len(actual) :]).abs().max())
