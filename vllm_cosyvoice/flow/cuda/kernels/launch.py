"""How kernels are laid out and launched.

A kernel may be launched while the one before it still runs (programmatic dependent launch, of compute capability 9.0
on). It then takes its place on the chip and prepares, and waits until all that came before it is written. So each
program of a kernel waits before it reads or writes what another kernel does. What it can read before, weights and what
describes the call (positions and tiles, copied before the first kernel), costs no time then.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


class Shape(NamedTuple):
    """How a kernel is laid out."""

    rows: int  # of a program's tile
    columns: int
    depth: int  # inputs of one step of a matrix product
    warps: int
    stages: int  # of the pipeline that loads ahead
    early: bool = False  # whether it is launched before the kernel in front is over

    @property
    def options(self) -> dict[str, int]:
        """What Triton, and the kernel's `EARLY`, are told at a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "launch_pdl": self.early, "EARLY": self.early}


@triton.jit
def wait_for_inputs(EARLY: tl.constexpr):
    """Until the kernels in front are over and what they wrote can be read."""
    if EARLY:
        gdc_wait()


@triton.jit
def let_next_in(EARLY: tl.constexpr):
    """The next kernel may be launched once all programs have come here: when there is room on the chip for it."""
    if EARLY:
        gdc_launch_dependents()
