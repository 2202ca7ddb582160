"""Repetition-aware sampling in vLLM: the request parameters, and the logits processor for CPUs.

The logits processor draws tokens with `token_draw` and passes one-hot logits to vLLM's sampler. On a GPU, vLLM uses
another model runner, and `model_state` draws the tokens.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from vllm_cosyvoice.llm import token_draw
from vllm_cosyvoice.llm.token_draw import NOTHING, RECORD, RING, WINDOW, WORDS
from vllm_cosyvoice.sampling import SamplingOptions

KEY = "repetition_aware_sampling"  # in `SamplingParams.extra_args`


def extra_args(options: SamplingOptions, earlier: Sequence[int], min_tokens: int) -> dict[str, Any]:
    """Build the `SamplingParams.extra_args` that enable repetition-aware sampling for a request.

    Temperature, seed and minimum of such a request go here. `SamplingParams` should have temperature 0, no seed and no
    minimum, so that vLLM's sampler only computes an argmax.

    options: must include a seed, because each rank of a tensor-parallel engine draws separately.
    earlier: tokens generated before this request.

    Raises ValueError for options without a seed.
    """
    if options.seed is None:
        raise ValueError("seed must be set: the caller of extra_args draws one for requests without a seed")
    return {KEY: {"options": asdict(options), "earlier": list(earlier), "min_tokens": min_tokens}}


def asks_for_it(params: SamplingParams) -> bool:
    """Whether our sampler draws the tokens of a request, not vLLM's."""
    return bool((params.extra_args or {}).get(KEY))


def record(params: SamplingParams, generated: Sequence[int] = ()) -> np.ndarray:
    """The device's record of a request that has `generated` these tokens: a `RECORD` as int32, [WORDS].

    It is all 0, including top_k, for a request that vLLM samples.
    """
    request = np.zeros(1, RECORD)
    if asks_for_it(params):
        arguments = params.extra_args[KEY]
        options, position = SamplingOptions(**arguments["options"]), len(generated)
        window = [*arguments["earlier"][-WINDOW:], *generated[-WINDOW:]][-WINDOW:]
        recent = np.full(RING, NOTHING)
        recent[np.arange(position - len(window), position) % RING] = window
        reach = WINDOW if options.repetition_aware else 0
        settings = options.temperature, options.top_p, options.top_k, reach, arguments["min_tokens"], options.seed
        request[0] = (recent, *settings)
    return request.view(np.int32)


@dataclass(eq=False)
class _Request:
    params: SamplingParams
    generated: list[int]  # vLLM's own list
    slot: int | None = None  # of its record


class RepetitionAwareSampling(LogitsProcessor):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """Samples requests that ask for it (see `extra_args`); vLLM samples the others."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Request] = {}
        self._records = torch.zeros(vllm_config.scheduler_config.max_num_seqs, WORDS, dtype=torch.int32)

    def is_argmax_invariant(self) -> bool:
        """Return False: the window and the control tokens can change the most likely token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Update the state for added, removed and moved requests."""
        if not process_dict_updates(self._requests, batch_update, _request):
            return
        requests = self._requests.values()
        if new := [request for request in requests if request.slot is None]:
            used_slots = {request.slot for request in requests}
            free_slots = (slot for slot in range(len(self._records)) if slot not in used_slots)
            for request in new:
                request.slot = next(free_slots)
            records = np.stack([record(request.params, request.generated) for request in new])
            self._records[[request.slot for request in new]] = torch.from_numpy(records)
        self._generated = [request.generated for request in requests]
        self._places = np.array([(row, request.slot, 0) for row, request in self._requests.items()], np.int32)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw the next token of each request, in place: logits, [rows, 6564] float32, become one-hot."""
        if self._requests:
            # If vLLM discards the token of a row, for example in the middle of a prompt, the row's length and position
            # do not change, so its next draw replaces this one.
            self._places[:, 2] = [len(tokens) for tokens in self._generated]
            token_draw.draw(logits, self._records, torch.from_numpy(self._places))
        return logits


def _request(params: SamplingParams, prompt: list[int] | None, generated: list[int]) -> _Request | None:
    return _Request(params, generated) if asks_for_it(params) else None
