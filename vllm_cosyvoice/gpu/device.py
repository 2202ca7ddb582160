"""The GPU that computes: what the layout of kernels depends on, and whether it can run them at all."""

from dataclasses import dataclass

import torch

OLDEST_CAPABILITY = (8, 0)  # the first with bfloat16 in matrix products and with asynchronous copies


class UnsupportedGpuError(RuntimeError):
    """The GPU can't run the kernels; the message says what to do."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, as its driver describes it."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    l2_cache: int  # bytes

    @classmethod
    def of(cls, device: torch.device | str = "cuda") -> "Gpu":
        """The GPU that PyTorch calls `device`.

        Raises:
            UnsupportedGpuError: its compute capability is below 8.0.
        """
        found = torch.cuda.get_device_properties(device)
        if (found.major, found.minor) < OLDEST_CAPABILITY:
            raise UnsupportedGpuError(
                f"{found.name} has compute capability {found.major}.{found.minor}, but speech takes"
                " 8.0 or newer (NVIDIA Ampere or later): choose another GPU with CUDA_VISIBLE_DEVICES, or install the"
                " CPU build and start it with `CUDA_VISIBLE_DEVICES= python -m server …`"
            )
        return cls(found.name, (found.major, found.minor), found.multi_processor_count, found.L2_cache_size)
