"""Repetition-aware sampling as a logits processor of vLLM, which draws the tokens itself (`token_draw`).

What a request generated lately is kept on the device, and vLLM's sampler gets logits that leave it no choice. So no
step waits for the tokens of the one before to reach the host.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from vllm_cosyvoice import token_draw
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.token_draw import NOTHING, RECORD, RING, WINDOW, WORDS

KEY = "repetition_aware_sampling"  # in `SamplingParams.extra_args`


def extra_args(options: SamplingOptions, earlier: list[int]) -> dict[str, Any]:
    """What `SamplingParams.extra_args` must hold for a request to be sampled here.

    options: with a seed, because each rank of a tensor-parallel engine draws for itself.
    earlier: the tokens generated before this request.
    """
    return {KEY: {"options": asdict(options), "earlier": earlier}}


@dataclass(eq=False)
class _Request:
    options: SamplingOptions
    earlier: list[int]
    generated: list[int]  # vLLM's own list. With asynchronous scheduling only the length of what is added to it is true
    slot: int | None = None  # of its record on the device

    def record(self) -> np.ndarray:
        """The request as the device knows it, a `RECORD`."""
        options, position = self.options, len(self.generated)
        window = [*self.earlier[-WINDOW:], *self.generated[-WINDOW:]][-WINDOW:]
        recent = np.full(RING, NOTHING)
        recent[np.arange(position - len(window), position) % RING] = window
        reach = WINDOW if options.repetition_aware else 0
        return np.array((recent, options.temperature, options.top_p, options.top_k, reach, options.seed), RECORD)


class RepetitionAwareSampling(LogitsProcessor):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """Samples the requests that ask for it in `SamplingParams.extra_args` (see `extra_args`); vLLM samples the others.

    Temperature and seed of such a request belong there, and `SamplingParams` should have temperature 0 and no seed:
    all that vLLM's sampler then does is an argmax.

    vLLM finds this class among the installed plugins, see `engine_arguments.SAMPLING`.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        if device.type == "cpu":
            self._draw = token_draw.draw
        else:
            from vllm_cosyvoice import token_draw_kernel

            self._draw = token_draw_kernel.draw
        self._pin_memory = is_pin_memory
        self._requests: dict[int, _Request] = {}
        self._records = torch.zeros(vllm_config.scheduler_config.max_num_seqs, WORDS, dtype=torch.int32, device=device)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError for options that can't be used."""
        if request := _request(sampling_params, None, []):
            request.options.validate()
            if request.options.seed is None:
                raise ValueError("seed must be given: whoever fills in extra_args draws one for requests without")

    def is_argmax_invariant(self) -> bool:
        """False: the window and the control tokens change the likeliest token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that came, went and moved."""
        if not process_dict_updates(self._requests, batch_update, _request):
            return
        requests = self._requests.values()
        if new := [request for request in requests if request.slot is None]:
            taken = {request.slot for request in requests}
            free = (slot for slot in range(len(self._records)) if slot not in taken)
            for request in new:
                request.slot = next(free)
            slots = np.array([request.slot for request in new])
            records = np.stack([request.record() for request in new]).view(np.int32).reshape(-1, WORDS)
            self._records.index_copy_(0, self._on_device(slots), self._on_device(records))
        self._generated = [request.generated for request in requests]
        places = [(row, request.slot, 0) for row, request in self._requests.items()]
        self._places = np.array(places, np.int32).reshape(-1, 3)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw the next token of each request, in place: logits, [rows, 6564] float32, become one-hot."""
        if self._requests:
            # A row whose token vLLM throws away, such as one in the middle of a prompt, keeps its length and so its
            # position: the next draw for it takes this one's place.
            self._places[:, 2] = [len(tokens) for tokens in self._generated]
            self._draw(logits, self._records, self._on_device(self._places))
        return logits

    def _on_device(self, values: np.ndarray) -> torch.Tensor:
        """A copy of `values` on the device, without waiting for it."""
        tensor = torch.from_numpy(values)
        return (tensor.pin_memory() if self._pin_memory else tensor).to(self._records.device, non_blocking=True)


def _request(params: SamplingParams, prompt: list[int] | None, generated: list[int]) -> _Request | None:
    if wanted := (params.extra_args or {}).get(KEY):
        return _Request(SamplingOptions(**wanted["options"]), wanted["earlier"], generated)
    return None
