"""A loss and its gradients as two CUDA graphs: launching a small network's kernels takes longer than they do."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]


def captured(
    parameters: Mapping[str, nn.Parameter], compute: Callable[..., Losses], example: tuple[Tensor, ...]
) -> Callable[..., Losses]:
    """`compute`, for tensors of the shapes of `example`; on a CPU `compute` itself.

    It must compute with `parameters` and never wait for the device.
    """
    if example[0].device.type == "cpu":
        return compute
    module = _Computation(parameters, compute)
    torch.cuda.make_graphed_callables(module, example, allow_unused_input=True)  # gives it another `forward`
    return module


class _Computation(nn.Module):
    """What `make_graphed_callables` takes: a module whose parameters get gradients."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], compute: Callable[..., Losses]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters.values())
        self.forward = compute
