"""A stand-in for TensorRT's runtime, which needs a GPU: plans are ONNX, and onnxruntime runs them where TensorRT would.

It reads and writes the addresses that it is given, and is as strict as TensorRT about shapes and profiles.
"""

import ctypes
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from vllm_cosyvoice.flow.tensorrt import runtime as tensorrt_runtime
from vllm_cosyvoice.flow.tensorrt.build import PROFILES

NUMPY_TYPES = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int32)": np.int32}


class StreamStandIn:
    cuda_stream = 7

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, stream: "StreamStandIn") -> None:
        assert isinstance(stream, StreamStandIn)


@dataclass
class ContextStandIn:
    session: onnxruntime.InferenceSession
    profile: int | None = None
    memory: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return stream == StreamStandIn.cuda_stream

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        if name == "x":
            assert shape[0] <= PROFILES[self.profile].rows and shape[1] <= PROFILES[self.profile].frames
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == StreamStandIn.cuda_stream and self.memory == EngineStandIn.device_memory_size_v2
        inputs = {}
        for value in self.session.get_inputs():
            content = np.empty(self.shapes[value.name], NUMPY_TYPES[value.type])
            ctypes.memmove(content.ctypes.data, self.addresses[value.name], content.nbytes)
            inputs[value.name] = content
        (velocities,) = self.session.run(["velocities"], inputs)
        ctypes.memmove(self.addresses["velocities"], velocities.ctypes.data, velocities.nbytes)
        return True


@dataclass
class EngineStandIn:
    plan: bytes
    device_memory_size_v2 = 256

    def create_execution_context(self, strategy: object) -> ContextStandIn:
        return ContextStandIn(onnxruntime.InferenceSession(self.plan))


class RuntimeStandIn:
    def __init__(self, messages: object) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> EngineStandIn | None:
        return None if plan.startswith(b"foreign") else EngineStandIn(plan)


def install(monkeypatch: pytest.MonkeyPatch, build: Callable[[bytes], bytes]) -> None:
    """Put the stand-in where TensorRT's runtime and the GPU would be; `build` stands in for `build_plan`."""
    strategies = SimpleNamespace(USER_MANAGED=2)
    library = SimpleNamespace(Runtime=RuntimeStandIn, ExecutionContextAllocationStrategy=strategies, __version__="0")
    chip = SimpleNamespace(name="Stand-in GPU", major=9, minor=0)
    replaced: dict[str, Any] = {
        "Stream": StreamStandIn,
        "stream": lambda stream: nullcontext(),
        "current_stream": StreamStandIn,
        "get_device_properties": lambda device: chip,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(tensorrt_runtime, "trt", library)
    monkeypatch.setattr(tensorrt_runtime, "build_plan", build)
