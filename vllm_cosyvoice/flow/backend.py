"""What computes the flow: TensorRT where it is asked for and there, fused kernels on a GPU, PyTorch elsewhere."""

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.flow.cuda.kernel_sizes import misfits
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.tensorrt.backend import tensorrt_estimator
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.gpu.device import Gpu

log = logging.getLogger(__name__)


class AnyFlow(Protocol):
    """Speech tokens to mel, see `Flow`."""

    def speaker(self, embedding: Tensor) -> Tensor:
        """As `Flow.speaker`."""

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which rows of so many frames, by their index, belong into one call."""

    def __call__(self, rows: list[FlowRow]) -> list[Tensor]:
        """As `Flow.forward`."""


def open_flow(model: ModelDirectory, device: torch.device, data_type: torch.dtype, *, load_trt: bool) -> AnyFlow:
    """The flow of `model`; a `PackedFlow` is still to be captured.

    Raises:
        ValueError: the weights don't fit the configuration.
        UnsupportedGpuError: the kernels don't run on `device`.
    """
    config = model.config.flow
    if load_trt:
        flow = Flow.from_state(config, model.flow_state(), device, data_type)
        flow.engine = tensorrt_estimator(flow.estimator)
        if flow.engine is not None:
            return flow
    fused = device.type == "cuda" and data_type != torch.float32
    if fused and (found := misfits(config)):
        log.warning(
            "Plain PyTorch computes the flow, which takes longer: the fused kernels do not take its %s.",
            ", ".join(found),
        )
        fused = False
    if not fused:
        return Flow.from_state(config, model.flow_state(), device, data_type)
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow  # needs Triton

    return PackedFlow(Flow.from_state(config, model.flow_state(), device), Gpu.of(device), data_type)
