"""The estimator as a TensorRT engine.

This code has never run on a GPU: TensorRT is not available on this project's machines. So every engine is compared
with the module before use and rejected if it differs.
"""

import logging

import torch
from torch import Tensor

from vllm_cosyvoice.config import CHUNK_FRAMES, MEL_BINS
from vllm_cosyvoice.flow.tensorrt.build import PROFILES, Messages, build_plan
from vllm_cosyvoice.flow.tensorrt.dit_onnx import dit_onnx
from vllm_cosyvoice.flow.tensorrt.interface import LONGEST, FrameMask, TensorRTError
from vllm_cosyvoice.flow.tensorrt.library import trt
from vllm_cosyvoice.flow.tensorrt.plan_cache import cached_plan, plan_path
from vllm_cosyvoice.flow.tensorrt.unet_onnx import unet_onnx
from vllm_cosyvoice.flow.torch.dit import Condition as DiTCondition
from vllm_cosyvoice.flow.torch.dit import DiT
from vllm_cosyvoice.flow.torch.estimator import Condition, Estimator
from vllm_cosyvoice.flow.torch.masks import attention_mask

log = logging.getLogger(__name__)

ALIGNMENT = 256  # bytes, of the start of a tensor
LARGEST_ERROR = 0.1  # relative RMS; two ways of rounding to bfloat16 differ by 0.02


class TensorRTEstimator:
    """Runs an estimator's `forward` in an engine, which the constructor builds or loads from disk.

    Args:
        estimator: on a GPU, in float16 or bfloat16; no reference to it is kept.
        time: the input `time` of some step, to compare the engine with the module.

    Raises:
        TensorRTError: the engine can't be built or loaded, or its results differ from the module's.
    """

    def __init__(self, estimator: Estimator | DiT, time: Tensor) -> None:
        self._messages = Messages()  # must outlive the objects that report to it
        # On the default stream, TensorRT would synchronise.
        self._stream = torch.cuda.Stream(time.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            self._engine = self._load(estimator, time.device)
            # All profiles share this memory, because they run one after another on one stream.
            self._memory = torch.empty(self._engine.device_memory_size_v2, dtype=torch.uint8, device=time.device)
            self._contexts = [self._context(index) for index in range(len(PROFILES))]
        self._check(estimator, time)

    def __call__(self, x: Tensor, condition: Condition | DiTCondition, time: Tensor, mask: FrameMask) -> Tensor:
        """Compute the velocities [2 · rows, frames, 80] like the estimator's `forward`, without waiting for the device.

        Do not capture this in a CUDA graph: a context must not change after capture, and these change their shapes.

        Raises:
            ValueError: the rows are longer than `LONGEST` frames.
        """
        rows, frames, _ = x.shape
        if frames > LONGEST:
            raise ValueError(f"{frames} frames exceed the engine's limit of {LONGEST}; use the PyTorch module instead")
        fitting = (index for index, profile in enumerate(PROFILES) if rows <= profile.rows and frames <= profile.frames)
        if (index := next(fitting, None)) is None:
            return self._in_halves(x, condition, time, mask)
        inputs = {"x": x, **condition._asdict(), "time": time, **mask._asdict()}
        inputs = {name: _aligned(tensor) for name, tensor in inputs.items()}
        velocities = torch.empty(2 * rows, frames, MEL_BINS, dtype=x.dtype, device=x.device)
        context, caller = self._contexts[index], torch.cuda.current_stream(x.device)
        self._stream.wait_stream(caller)
        for name, tensor in inputs.items():
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        context.set_tensor_address("velocities", velocities.data_ptr())
        with torch.cuda.stream(self._stream):
            if not context.execute_async_v3(self._stream.cuda_stream):
                raise TensorRTError(f"the engine failed: {self._messages.last_error}")
        caller.wait_stream(self._stream)  # so that the caller's stream may reuse the inputs' memory
        return velocities

    def _in_halves(self, x: Tensor, condition: Condition | DiTCondition, time: Tensor, mask: FrameMask) -> Tensor:
        """Run two calls with half the rows each, if no profile fits all rows."""
        middle = len(x) // 2
        halves = [
            self(x[part], condition.of_rows(part), time, FrameMask(*(t[part] for t in mask)))
            for part in (slice(middle), slice(middle, None))
        ]
        guided, free = zip(*(half.chunk(2) for half in halves), strict=True)
        return torch.cat([*guided, *free])

    def _load(self, estimator: Estimator | DiT, device: torch.device) -> "trt.ICudaEngine":
        """Load the engine from disk; build it if it is missing or unusable."""
        model = dit_onnx(estimator) if isinstance(estimator, DiT) else unet_onnx(estimator)
        onnx = model.SerializeToString(deterministic=True)
        chip = torch.cuda.get_device_properties(device)
        path = plan_path(
            content=onnx + repr(PROFILES).encode(),
            library=f"tensorrt-{trt.__version__}",
            chip=f"{chip.name}-sm{chip.major}{chip.minor}",
        )
        runtime = trt.Runtime(self._messages)
        for _ in range(2):
            engine = runtime.deserialize_cuda_engine(cached_plan(path, lambda: build_plan(onnx)))
            if engine is not None:
                return engine
            log.warning("%s is not a plan for this machine and will be rebuilt.", path)
            path.unlink(missing_ok=True)
        raise TensorRTError(f"TensorRT can't load the engine it built: {self._messages.last_error}")

    def _context(self, profile: int) -> "trt.IExecutionContext":
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None or not context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise TensorRTError(f"TensorRT can't make an execution context: {self._messages.last_error}")
        context.set_device_memory(self._memory.data_ptr(), self._memory.nbytes)
        return context

    @torch.inference_mode()
    def _check(self, estimator: Estimator | DiT, time: Tensor) -> None:
        """Compare the engine with the module for each profile. Every other row is shorter and has full attention."""
        for rows in (profile.rows for profile in PROFILES):
            draws = torch.randn(3, rows, 3 * CHUNK_FRAMES - 20, MEL_BINS, generator=torch.Generator().manual_seed(rows))
            x, mu, prompt_mel = draws.to(time)
            condition = estimator.condition(mu, mu[:, 0], prompt_mel)
            positions = torch.arange(x.shape[1], device=time.device)
            short = torch.arange(rows, device=time.device) % 2
            lengths, chunks = len(positions) - CHUNK_FRAMES * short, CHUNK_FRAMES + len(positions) * short
            mask = attention_mask(lengths.repeat(2), chunks.repeat(2), len(positions), time.dtype)
            real = (positions < lengths[:, None]).repeat(2, 1)
            expected = estimator(x, condition, time, mask)[real].float()
            actual = self(x, condition, time, FrameMask(lengths.int(), chunks.int()))[real]
            error = float((actual - expected).norm() / expected.norm())
            if not error <= LARGEST_ERROR:  # NaN fails, too
                raise TensorRTError(f"the engine's velocities for {rows} rows are off by {error:.1%} of the module's")


def _aligned(tensor: Tensor) -> Tensor:
    """Return `tensor` itself if it is contiguous and aligned for TensorRT, else a copy."""
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
