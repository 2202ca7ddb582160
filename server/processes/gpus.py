"""The GPU of each process, and which processes share one through NVIDIA's Multi-Process Service."""

import os

from server.processes.messages import Kind
from server.processes.nvidia_mps import Service


def shares_first_gpu(kind: Kind, index: int) -> bool:
    """Return whether a process is the language model or the first decode process: by default they share GPU 0."""
    return kind in ("generate", "decode") and index == 0


def gpu_variables(kind: Kind, index: int, decode_gpu: int, service: Service | None) -> dict[str, str]:
    """Return the environment variables that select the GPU of a process.

    The language model uses the first visible GPU. Each decode process uses one GPU, from `decode_gpu` on, and sees no
    other, so that nothing is allocated on another by default. Processes that share the first GPU use `service`.
    """
    variables: dict[str, str] = {}
    if service and shares_first_gpu(kind, index):
        variables |= service.variables
    if kind == "decode":
        variables["CUDA_VISIBLE_DEVICES"] = nth_gpu(decode_gpu + index, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return variables


def nth_gpu(index: int, visible: str | None) -> str:
    """Return CUDA's name of the GPU `index` among the `visible` ones (None: all); empty if there are fewer."""
    if visible is None:
        return str(index)
    names = [name for name in visible.split(",") if name]
    return names[index] if index < len(names) else ""
