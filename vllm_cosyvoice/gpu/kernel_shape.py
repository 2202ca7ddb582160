"""Layout of Triton kernels, and their early launch.

A kernel may be launched while the previous one still runs (programmatic dependent launch, from compute capability 9.0
on). It then occupies its slots on the GPU, prepares, and waits until all output of earlier kernels is written. So each
program waits before it touches memory that another kernel reads or writes. Loads before the wait are free: weights, and
what was complete before the first kernel (positions and tiles of the call, keys and values of earlier steps).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from vllm_cosyvoice.gpu.device import Gpu

EARLY_FROM = (9, 0)  # compute capability


class Shape(NamedTuple):
    """Layout of a kernel."""

    rows: int  # of a program's tile
    columns: int
    depth: int  # inputs per step of a matrix product; 0: there is none
    warps: int
    stages: int  # of the load pipeline
    early: bool = False  # whether it is launched before the previous kernel ends

    @property
    def options(self) -> dict[str, int]:
        """Launch options for Triton and the kernel's `EARLY`."""
        return {"num_warps": self.warps, "num_stages": self.stages, "launch_pdl": self.early, "EARLY": self.early}


def early_where_possible(shapes: Iterable[Shape], gpu: Gpu) -> Iterator[Shape]:
    """Let kernels of these shapes be launched early if `gpu` can do that."""
    return (shape._replace(early=gpu.capability >= EARLY_FROM) for shape in shapes)


@triton.jit
def wait_for_inputs(EARLY: tl.constexpr):
    """Wait until all earlier kernels have ended and their output is visible."""
    if EARLY:
        gdc_wait()


@triton.jit
def let_next_in(EARLY: tl.constexpr):
    """Allow the launch of the next kernel once all programs have reached this point and the GPU has free slots."""
    if EARLY:
        gdc_launch_dependents()
