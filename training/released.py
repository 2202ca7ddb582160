"""Training in the released layout: the parameters have the names and shapes of the files, the serving modules compute.

A serving module keeps its weights in another shape (convolutions as matrices, weight norm multiplied out). Its own
`loading` function turns the file's tensors into those, and is differentiable, so it runs in every step: what is trained
is what is saved, and what is served is what was trained.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vllm_cosyvoice.checkpoint.layout import Layout

Parameters = dict[str, nn.Parameter]


def new_parameters(layout: Layout, device: torch.device | str, seed: int = 0) -> Parameters:
    """Fresh parameters of a layout."""
    generator = torch.Generator().manual_seed(seed)
    parameters: Parameters = {}
    for name, shape in layout.items():
        if name.endswith(".alpha") or (len(shape) == 1 and name.endswith("weight")):
            value = torch.ones(shape)
        elif len(shape) == 1:
            value = torch.zeros(shape)
        else:
            value = torch.randn(shape, generator=generator)
            value /= math.sqrt(math.prod(shape[1:]))  # a matrix keeps the size of what passes through it
        parameters[name] = nn.Parameter(value)
    for name, parameter in parameters.items():
        if name.endswith("original1"):
            norms = parameters[name.replace("original1", "original0")]
            norms.data.copy_(parameter.data.flatten(1).norm(dim=1).view_as(norms))
    return {name: nn.Parameter(parameter.data.to(device)) for name, parameter in parameters.items()}


class Served(nn.Module):
    """A serving module that computes with released parameters."""

    def __init__(
        self, module: nn.Module, parameters: Parameters, weights: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    ) -> None:
        super().__init__()
        self.module, self.released, self.weights = module, parameters, weights

    def __call__(self, method: Callable[..., tuple[Tensor, ...]], *arguments: object) -> tuple[Tensor, ...]:
        """`method(module, *arguments)` with today's parameters."""
        call = _Call(self.module, method)
        weights = {f"module.{name}": tensor for name, tensor in self.weights(self.released).items()}
        result: tuple[Tensor, ...] = functional_call(call, weights, arguments)
        return result


class _Call(nn.Module):
    """`functional_call` calls `forward`, and serving modules' own is for whole requests, without gradients."""

    def __init__(self, module: nn.Module, method: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments: object) -> tuple[Tensor, ...]:
        return self.method(self.module, *arguments)
