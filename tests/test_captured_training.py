"""Training in CUDA graphs computes what it computes without them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training import flow, vocoder
from training.__main__ import new_flow, new_vocoder
from training.captured import Losses, captured
from training.sizes import TOY
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")

Settings = dict[str, bool]
STEPS = 30  # each draws other noise and times


def flow_case() -> tuple[dict[str, nn.Parameter], Callable[..., Losses], tuple[Tensor, ...]]:
    parameters, served = new_flow(TOY, "cuda")

    def compute(*tensors: Any, streaming: bool) -> Losses:
        with torch.autocast("cuda", torch.bfloat16):
            return flow.loss(served, *tensors, streaming=streaming)

    tokens, mel, speaker = torch.randint(SPEECH_TOKENS, (4, 33)), torch.randn(4, 60, 80) - 5, torch.randn(4, 192)
    return parameters, compute, (tokens, mel, speaker, torch.tensor(3), torch.tensor(10))


def vocoder_case() -> tuple[dict[str, nn.Parameter], Callable[..., Losses], tuple[Tensor, ...]]:
    parameters, served, discriminators = new_vocoder(TOY, "cuda")
    mel, audio, f0 = torch.randn(2, 20, 80), 0.1 * torch.randn(2, 9600), torch.full((2, 20), 150.0)
    return parameters, partial(vocoder.loss, served, discriminators), (mel, audio, f0)


@pytest.mark.parametrize(("make", "setting"), [(flow_case, "streaming"), (vocoder_case, "adversarial")])
def test_gradients_are_those_without_graphs(make: Callable[[], Any], setting: str) -> None:
    parameters, compute, batch = make()
    replayed = captured(parameters, compute)
    for value in (True, False, True, False):  # first captured, then replayed, each with the other's graphs in between
        norms = [
            sum(gradient_norm(parameters, call, batch, {setting: value}) for _ in range(STEPS)) / STEPS
            for call in (compute, replayed)
        ]
        assert norms[1] == pytest.approx(norms[0], rel=0.1)


def gradient_norm(
    parameters: dict[str, nn.Parameter], call: Callable[..., Losses], batch: tuple[Tensor, ...], settings: Settings
) -> float:
    """The norm of all gradients of one step."""
    for parameter in parameters.values():
        parameter.grad = None
    call(*(tensor.cuda() for tensor in batch), **settings)["loss"].backward()  # type: ignore[no-untyped-call]
    return float(nn.utils.get_total_norm([each.grad for each in parameters.values() if each.grad is not None]))
