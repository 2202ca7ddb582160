"""Decides whether TensorRT runs the flow's estimator.

The engine itself has never run: no machine of this project has TensorRT. Its graph was compared with the module in
onnxruntime, and TensorRT for RTX parses and builds it. `runtime` checks every engine before use.
"""

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from vllm_cosyvoice.flow.tensorrt.interface import TensorRTError

if TYPE_CHECKING:
    from vllm_cosyvoice.flow.tensorrt.runtime import TensorRTEstimator
    from vllm_cosyvoice.flow.torch.flow import FlowMatching

log = logging.getLogger(__name__)


def tensorrt_estimator(flow: "FlowMatching") -> "TensorRTEstimator | None":
    """Open an engine that replaces the flow's estimator, with its weights and on its device.

    Log and return None on failure.

    The first call for these weights on this GPU model builds the engine, which takes minutes, and caches it on disk.
    """
    try:
        engine = _open(flow)
    except TensorRTError as error:
        log.info("--load_trt: %s; the flow runs without it.", error)
        return None
    log.info("--load_trt: TensorRT runs the flow's estimator.")
    return engine


def _open(flow: "FlowMatching") -> "TensorRTEstimator":
    times = flow.step_times
    if times.device.type != "cuda":
        raise TensorRTError("there is no GPU")
    if find_spec("tensorrt") is None:
        raise TensorRTError("tensorrt is not installed")
    if times.dtype == torch.float32:
        raise TensorRTError("TensorRT has no fused attention in float32; choose bfloat16 or float16")
    try:
        from vllm_cosyvoice.flow.tensorrt.runtime import TensorRTEstimator  # needs tensorrt, which is optional
    except (ImportError, OSError) as error:
        raise TensorRTError(f"tensorrt can't be loaded ({error})") from error
    return TensorRTEstimator(flow.estimator, times[len(times) // 2])
