"""Properties of the GPU that kernel layouts depend on, and reasons why it can't be used."""

from dataclasses import dataclass

import torch

GIB = 1 << 30  # bytes
OLDEST_CAPABILITY = (8, 0)  # the first with bfloat16 matrix products and asynchronous copies


class UnsupportedGpuError(RuntimeError):
    """The GPU can't run the kernels. The message says what to do."""


class GpuMemoryError(RuntimeError):
    """The GPU has too little free memory. The message says what to do."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, as described by its driver."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    l2_cache: int  # bytes

    @classmethod
    def of(cls, device: torch.device | str = "cuda") -> "Gpu":
        """Query the properties of the PyTorch device `device`.

        Raises:
            UnsupportedGpuError: its compute capability is below 8.0.
        """
        properties = torch.cuda.get_device_properties(device)
        capability = properties.major, properties.minor
        if capability < OLDEST_CAPABILITY:
            raise UnsupportedGpuError(
                f"{properties.name} has compute capability {properties.major}.{properties.minor}, but speech synthesis"
                " needs 8.0 or newer (NVIDIA Ampere or later): choose another GPU with CUDA_VISIBLE_DEVICES, or install"
                " the CPU build and start it with `CUDA_VISIBLE_DEVICES= python -m server …`"
            )
        return cls(properties.name, capability, properties.multi_processor_count, properties.L2_cache_size)
