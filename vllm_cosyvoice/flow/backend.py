"""Selects the flow by the class of its sizes, and its backend.

The backend is TensorRT if requested and available, fused kernels on a GPU, and PyTorch elsewhere.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import DiTFlowConfig
from vllm_cosyvoice.flow.cache import FlowCache, default_budget
from vllm_cosyvoice.flow.cuda.kernel_sizes import misfits
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.tensorrt.backend import tensorrt_estimator
from vllm_cosyvoice.flow.torch.dit_flow import DiTFlow
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.gpu.device import Gpu

log = logging.getLogger(__name__)


class AnyFlow(Protocol):
    """Converts speech tokens to mel, see `Flow`."""

    @property
    def cache(self) -> FlowCache | None:
        """What it remembers, if it remembers anything."""

    def speaker(self, embedding: Tensor) -> Tensor:
        """See `Flow.speaker`."""

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls: the indices of the rows for each call, given their `lengths` in frames."""

    def __call__(self, rows: list[FlowRow]) -> list[Tensor]:
        """See `Flow.forward`."""

    def remember_prompt(self, row: FlowRow) -> None:
        """See `Flow.remember_prompt`."""


def open_flow(
    model: ModelDirectory,
    device: torch.device,
    data_type: torch.dtype,
    *,
    load_trt: bool,
    cache_bytes: int | None = 0,
    others: int = 0,
    decoders: int = 1,
) -> AnyFlow:
    """Load the flow of `model`. The caller still has to capture the CUDA graphs of a `PackedFlow`.

    cache_bytes: memory for what it remembers; 0: nothing; None: a share of the memory. In plain PyTorch, a flow
        remembers on a CPU only.
    others: bytes of GPU memory that this share leaves to everything else.
    decoders: number of processes that divide the memory of a GPU.

    Raises:
        ValueError: the weights don't match the configuration.
        UnsupportedGpuError: the kernels don't run on `device`.
        GpuMemoryError: `device` does not have `cache_bytes`.
    """
    config = model.config.flow
    flow_class = DiTFlow if isinstance(config, DiTFlowConfig) else Flow
    fits = device.type == "cuda" and data_type != torch.float32
    unsupported = misfits(config) if fits else []
    plain = not fits or bool(unsupported)
    if plain or load_trt:
        torch.backends.cudnn.allow_tf32 = False  # its rounding depends on a call's size, so a stream would not be exact
        flow = flow_class.from_state(config, model.flow_state(), device, data_type)
        flow.engine = tensorrt_estimator(flow) if load_trt else None
        if unsupported and flow.engine is None:
            log.warning(
                "The flow runs in plain PyTorch, which is slower: the fused kernels do not support its %s.",
                ", ".join(unsupported),
            )
        if plain or flow.engine is not None:
            budget = default_budget() if cache_bytes is None else cache_bytes
            if device.type == "cpu" and budget:
                flow.cache = FlowCache(budget)
            return flow
        del flow
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow  # needs Triton

    whole = flow_class.from_state(config, model.flow_state(), device)
    return PackedFlow(whole, Gpu.of(device), data_type, cache_bytes=cache_bytes, others=others, decoders=decoders)
