"""Which GPU each process uses, and which processes share one by NVIDIA's Multi-Process Service."""

import os

from server.processes.messages import Kind
from server.processes.nvidia_mps import Service


def shares_first_gpu(kind: Kind, index: int) -> bool:
    """Whether a process is the language model or the first decode process, which use the first GPU by default."""
    return kind in ("generate", "decode") and index == 0


def gpu_variables(kind: Kind, index: int, decode_gpu: int, service: Service | None) -> dict[str, str]:
    """The environment variables that give a process its GPU.

    The language model uses the first visible GPU. Decode processes use one each, from the GPU `decode_gpu` on, and see
    no other, so that nothing in them can land on another by default. `service` is used by those that share the first.
    """
    variables: dict[str, str] = {}
    if service and shares_first_gpu(kind, index):
        variables |= service.variables
    if kind == "decode":
        variables["CUDA_VISIBLE_DEVICES"] = nth_gpu(decode_gpu + index, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return variables


def nth_gpu(index: int, visible: str | None) -> str:
    """CUDA's name for the GPU `index` of those that are `visible` (None: all); nothing where there are fewer."""
    if visible is None:
        return str(index)
    names = [name for name in visible.split(",") if name]
    return names[index] if index < len(names) else ""
