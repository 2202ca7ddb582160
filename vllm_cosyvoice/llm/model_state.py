"""Repetition-aware sampling on a GPU: the model-specific part of vLLM's V2 model runner.

In this runner, requests have fixed slots, and their recent tokens are on the device. So the host uploads a request once
when it arrives and does no work for it per step, and a step does not wait for the tokens of the previous one.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.mm.encoder_cache import EncoderCache
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.sampler import Sampler

from vllm_cosyvoice.llm import token_draw_kernel
from vllm_cosyvoice.llm.multi_step import FurtherSteps
from vllm_cosyvoice.llm.repetition_aware_sampling import record
from vllm_cosyvoice.llm.token_draw import WORDS


class SpeechModelState(DefaultModelState):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """The model runner's state for our model: the `RECORD` of the request in each slot."""

    def __init__(
        self, vllm_config: VllmConfig, model: nn.Module, encoder_cache: EncoderCache | None, device: torch.device
    ) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        self._records = torch.zeros(self.max_num_reqs, WORDS, dtype=torch.int32, device=device)
        self._new: dict[int, np.ndarray] = {}  # by slot, not yet on the device
        self._sampled_by_vllm = np.ones(self.max_num_reqs, bool)  # by slot

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        """Register a new or resumed request in the slot `req_index`."""
        super().add_request(req_index, new_req_data)
        self._new[req_index] = record(new_req_data.sampling_params)
        self._sampled_by_vllm[req_index] = not self._new[req_index].any()

    def apply_staged_writes(self) -> None:
        """Upload new requests to the device, without waiting for it."""
        super().apply_staged_writes()
        if self._new:
            slots = async_tensor_h2d(np.array(list(self._new)), self.device)
            records = async_tensor_h2d(np.stack(list(self._new.values())), self.device)
            self._records.index_copy_(0, slots, records)
            self._new.clear()

    def custom_sampler(self, sampler: Sampler) -> "tuple[RepetitionAwareSampler, None]":
        """Our sampler around vLLM's, and none for speculative decoding."""
        return RepetitionAwareSampler(sampler, self._records, self._sampled_by_vllm), None


class RepetitionAwareSampler:
    """Draws the tokens of requests that ask for it (see `extra_args`). vLLM's sampler draws those of the others.

    The former get no logprobs.
    """

    def __init__(self, sampler: Sampler, records: torch.Tensor, sampled_by_vllm: np.ndarray) -> None:
        self._sampler = sampler
        self._records = records
        self._sampled_by_vllm = sampled_by_vllm
        self._none_rejected = torch.zeros(len(records), dtype=torch.int32, device=records.device)
        self._has_new = False
        self.further_steps: FurtherSteps | None = None  # of the plan whose first step runs now

    def add_request(self, *arguments: object) -> None:
        """Register a request with vLLM's sampler. The arguments depend on vLLM's version."""
        self._sampler.add_request(*arguments)
        self._has_new = True

    def apply_staged_writes(self) -> None:
        """Upload new requests. vLLM calls this in every step, and all settings took a tenth of the host's time."""
        if self._has_new:
            self._sampler.apply_staged_writes()
            self._has_new = False

    def __call__(self, logits: torch.Tensor, input_batch: InputBatch) -> SamplerOutput:
        """Sample the next token of each request from its logits, [rows, 6564], or the tokens of all planned steps."""
        drawn, gained = self._draw(logits, input_batch)
        if self.further_steps:
            further, self.further_steps = self.further_steps, None
            return self._all_steps(drawn, further, input_batch)
        if self._sampled_by_vllm[input_batch.idx_mapping_np].any():
            output = self._sampler(logits, input_batch)
            output.sampled_token_ids = torch.where(drawn < 0, output.sampled_token_ids, drawn)
            return output
        return _output(drawn, gained, self._none_rejected[: len(gained)])

    def _all_steps(self, first: torch.Tensor, further: FurtherSteps, batch: InputBatch) -> SamplerOutput:
        """Run the steps after that of the tokens `first`, [requests, 1]."""
        tokens = [first]
        for _ in range(further.count):
            tokens.append(self._draw(further.next_logits(tokens[-1], batch), batch)[0])
        gained = torch.full((len(first),), len(tokens), dtype=torch.int32, device=first.device)
        # vLLM counts a step's inputs that were not rejected as computed. It knows of one input.
        return _output(torch.cat(tokens, 1), gained, 1 - gained)

    def _draw(self, logits: torch.Tensor, batch: InputBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a token for each row, [rows, 1], and count what each request gains, [rows]."""
        requests = self._sampler.req_states
        drawn, gained = token_draw_kernel.draw(
            logits,
            self._records,
            batch.expanded_idx_mapping,
            batch.seq_lens,
            requests.prompt_len.gpu,
            requests.prefill_len.gpu,
            requests.all_token_ids.gpu,
        )
        return drawn.view(-1, 1), gained

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of vLLM's sampler
        return getattr(self._sampler, name)


def _output(tokens: torch.Tensor, gained: torch.Tensor, rejected: torch.Tensor) -> SamplerOutput:
    return SamplerOutput(
        sampled_token_ids=tokens,
        logprobs_tensors=None,
        num_nans=None,
        num_sampled=gained,
        num_rejected=rejected,
    )
