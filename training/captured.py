"""A loss and its gradients as two CUDA graphs: launching a small network's kernels takes longer than they do."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]


def captured(parameters: Mapping[str, nn.Parameter], compute: Callable[..., Losses]) -> Callable[..., Losses]:
    """`compute`, captured at the first call with tensors of such shapes and such settings; on a CPU `compute` itself.

    Its positional arguments must be tensors, the others not. It must compute with `parameters` and never wait for the
    device. Call `backward` before the next call: all graphs share their memory.
    """
    if next(iter(parameters.values())).device.type == "cpu":
        return compute
    # PyTorch 2.14 refuses to capture with what an earlier backward left, as each capture leaves for the next.
    if accept_earlier := getattr(torch.autograd.graph, "set_override_stale_capture_stream", None):
        accept_earlier(True)
    pool = torch.cuda.graph_pool_handle()
    graphs: dict[tuple[object, ...], _Computation] = {}

    def replayed(*tensors: Tensor, **settings: object) -> Losses:
        case = (*(tensor.shape for tensor in tensors), *settings.items())
        if case not in graphs:
            graphs[case] = _Computation(parameters, partial(compute, **settings))
            # This gives it another `forward`.
            torch.cuda.make_graphed_callables(graphs[case], tensors, allow_unused_input=True, pool=pool)
        losses: Losses = graphs[case](*tensors)
        return losses

    return replayed


class _Computation(nn.Module):
    """What `make_graphed_callables` takes: a module whose parameters get gradients."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], compute: Callable[..., Losses]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters.values())
        self.forward = compute
