"""The GPU of each process, and which processes share one through NVIDIA's Multi-Process Service."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from server.arguments import Arguments
from server.processes.messages import Kind
from server.processes.nvidia_mps import Service

# Two decode processes on one GPU run at the same time, so a short call with first audio need not wait for a long one.
# The second takes some 5 GiB of memory, so only large cards have two by default.
DECODERS_OF_A_LARGE_CARD = 2
LARGE_CARD = 64 << 30  # bytes of memory


@dataclass(frozen=True)
class Placement:
    """The GPUs of all processes: the language model uses GPU 0, decode processes share those from `first` on evenly."""

    first: int
    gpus: int  # number of GPUs for decode processes; 1 without a GPU
    decoders: int  # number of decode processes

    @classmethod
    def of(cls, arguments: Arguments, memory: Sequence[int], *, with_mps: bool) -> Self:
        """Place the processes on GPUs with these bytes of `memory`; `with_mps`: through the Multi-Process Service."""
        first = arguments.decode_gpu
        if arguments.decode_process_num is not None:
            return cls(first, max(1, len(memory) - first), arguments.decode_process_num)
        is_large = first < len(memory) and memory[first] >= LARGE_CARD
        return cls(first, 1, DECODERS_OF_A_LARGE_CARD if is_large and with_mps else 1)

    def decoders_beside(self, index: int) -> int:
        """Return how many decode processes use the GPU of decode process `index`, itself included."""
        return len(range(index % self.gpus, self.decoders, self.gpus))

    def shares(self, kind: Kind, index: int) -> bool:
        """Return whether a process shares its GPU with another one."""
        if kind == "generate":
            return self.first == 0
        return kind == "decode" and (self._gpu(index) == 0 or self.decoders_beside(index) > 1)

    @property
    def any_shares(self) -> bool:
        """Whether any two processes share a GPU."""
        return self.shares("generate", 0) or self.shares("decode", 0)

    def variables(self, kind: Kind, index: int, service: Service | None) -> dict[str, str]:
        """Return the environment variables that select the GPU of a process.

        A decode process sees no other GPU, so that nothing is allocated on another by default. Processes that share a
        GPU use `service`.
        """
        variables: dict[str, str] = {}
        if service and self.shares(kind, index):
            variables |= service.variables
        if kind == "decode":
            variables["CUDA_VISIBLE_DEVICES"] = nth_gpu(self._gpu(index), os.environ.get("CUDA_VISIBLE_DEVICES"))
        return variables

    def _gpu(self, index: int) -> int:
        """The number of the GPU of decode process `index` among those that the server sees."""
        return self.first + index % self.gpus


def nth_gpu(index: int, visible: str | None) -> str:
    """Return CUDA's name of the GPU `index` among the `visible` ones (None: all); empty if there are fewer."""
    if visible is None:
        return str(index)
    names = [name for name in visible.split(",") if name]
    return names[index] if index < len(names) else ""
