"""How kernels are launched."""

from typing import NamedTuple


class Shape(NamedTuple):
    """How a kernel is laid out."""

    rows: int  # of a program's tile
    columns: int
    depth: int  # inputs of one step of a matrix product
    warps: int
    stages: int  # of the pipeline that loads ahead

    @property
    def options(self) -> dict[str, int]:
        """What Triton is told at a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages}
