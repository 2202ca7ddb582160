"""Repetition-aware sampling (RAS) as a logits processor of vLLM.

RAS draws a token from the nucleus; if that token is among the last ten, it draws again, from all tokens but that one.
Both draws have one closed form, so a step transforms the whole batch's logits at once and vLLM's sampler draws.
"""

from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import UNUSED

WINDOW = 10  # generated tokens in which a repetition counts

# A token that is never generated, so that it may stand in a window for "nothing".
NOTHING = UNUSED


def extra_args(options: SamplingOptions, earlier: list[int]) -> dict[str, Any]:
    """What `SamplingParams.extra_args` must hold; `earlier`: the tokens generated before this request."""
    return {"sampling": asdict(options), "earlier": earlier}


def nucleus_without_repetition(
    logits: torch.Tensor, window: torch.Tensor, top_p: torch.Tensor, in_top_k: torch.Tensor
) -> torch.Tensor:
    """Log probabilities (not normalised) of the token that repetition-aware sampling ends with.

    logits: [rows, vocabulary] float32. window: [rows, 10], the last generated tokens. top_p: [rows, 1].
    in_top_k: [rows, k] bool, True for the ranks a row may take.

    With q = softmax(logits), p = the nucleus of q and W = the window, token j is drawn with probability
    p_j·[j∉W] + q_j·(S − [j∈W]·s_j), where s_i = p_i/(1 − q_i) for i in W, S = Σ s_i.
    Only the likeliest token's q can be near 1, where 1 − q is lost to rounding. So it is kept apart: `rest` is the
    softmax of all others, and what its own s adds to the others, q_j·s, is p·rest_j without any division.
    """
    top_logits, top = logits.topk(in_top_k.shape[1], dim=-1)
    first, others = top[:, :1], top[:, 1:]
    rest = logits.scatter(1, first, -torch.inf)
    rest_mass = rest.logsumexp(-1, keepdim=True)
    rest = (rest - rest_mass).exp_()
    odds = top_logits[:, :1] - rest_mass
    first_q, others_q = odds.sigmoid(), (-odds).sigmoid()
    q = torch.cat([first_q, others_q * rest.gather(1, others)], dim=1)

    kept = (q.cumsum(-1) - q < top_p) & in_top_k
    p = torch.where(kept, q, 0.0)
    p /= p.sum(-1, keepdim=True)

    repeated = (top.unsqueeze(-1) == window.unsqueeze(1)).any(-1)
    s = torch.where(repeated, p / (1.0 - q), 0.0)
    s[:, 0] = 0.0
    total = s.sum(-1, keepdim=True)
    again = total * others_q + torch.where(repeated[:, :1], p[:, :1], 0.0)
    drawn = torch.where(repeated, -q * s, p)
    drawn[:, :1] = torch.where(repeated[:, :1], 0.0, p[:, :1]) + total * first_q
    return rest.mul_(again).scatter_add_(1, top, drawn).clamp_(min=0.0).log_()


@dataclass(eq=False)
class _Request:
    options: SamplingOptions
    earlier: list[int]
    generated: list[int]  # vLLM's own list, which grows as tokens come

    def window(self) -> list[int]:
        """The last generated tokens, exactly WINDOW of them."""
        if not self.options.repetition_aware:
            return [NOTHING] * WINDOW
        recent = self.generated[-WINDOW:]
        missing = WINDOW - len(recent)
        return recent if not missing else ([NOTHING] * missing + self.earlier)[-missing:] + recent


class RepetitionAwareSampling(LogitsProcessor):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """Samples every request of the engine by its options in `SamplingParams.extra_args` (see `extra_args`).

    The temperature is applied here, so `SamplingParams.temperature` must be 1, or 0 for greedy requests: these
    get the highest logit among the tokens not in the window. Control tokens other than end of speech are never drawn.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._pin_memory = is_pin_memory
        self._requests: dict[int, _Request] = {}
        self._batch: list[_Request] = []

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError for options that can't be used."""
        _options(sampling_params).validate()

    def is_argmax_invariant(self) -> bool:
        """False: the window and the control tokens change the likeliest token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that came, went and moved."""
        # The generated tokens are not read here: with asynchronous scheduling the newest may still be a placeholder.
        if batch_update is None:
            return
        process_dict_updates(self._requests, batch_update, _request)
        self._batch = [self._requests[row] for row in range(batch_update.batch_size)]
        options = [request.options for request in self._batch]
        greedy = [option.temperature == 0 for option in options]
        self._any_greedy = any(greedy)
        self._greedy = self._on_device(greedy, torch.bool).unsqueeze(1)
        self._temperature = self._on_device([option.temperature or 1 for option in options], torch.float32).unsqueeze(1)
        self._top_p = self._on_device([option.top_p for option in options], torch.float32).unsqueeze(1)
        top_k = self._on_device([option.top_k for option in options], torch.int64).unsqueeze(1)
        ranks = torch.arange(max((option.top_k for option in options), default=1), device=self._device)
        self._in_top_k = ranks < top_k

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn the model's logits, [rows, 6564] float32, into log probabilities of the next token."""
        recent = chain.from_iterable(request.window() for request in self._batch)
        window = self._on_device(list(recent), torch.int64).view(-1, WINDOW)
        logits[:, UNUSED:] = -torch.inf
        sampled = nucleus_without_repetition(logits / self._temperature, window, self._top_p, self._in_top_k)
        if not self._any_greedy:
            return sampled
        return torch.where(self._greedy, logits.scatter(1, window, -torch.inf), sampled)

    def _on_device(self, values: list[Any], data_type: torch.dtype) -> torch.Tensor:
        """`values` on the device, without waiting for the copy."""
        return torch.tensor(values, dtype=data_type, pin_memory=self._pin_memory).to(self._device, non_blocking=True)


def _request(params: SamplingParams, prompt: list[int] | None, generated: list[int]) -> _Request:
    return _Request(_options(params), (params.extra_args or {}).get("earlier", []), generated)


def _options(params: SamplingParams) -> SamplingOptions:
    return SamplingOptions(**(params.extra_args or {}).get("sampling", {}))
