"""GPUs as their drivers describe them, for machines that have none."""

from typing import NamedTuple

from vllm_cosyvoice.gpu.device import Gpu

MIB = 1 << 20


class Card(NamedTuple):
    """A GPU, and the shared memory that a block of it may have, in bytes."""

    gpu: Gpu
    shared_memory: int


A100 = Card(Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 40 * MIB), 166_912)
A10 = Card(Gpu("NVIDIA A10", (8, 6), 72, 6 * MIB), 101_376)
L4 = Card(Gpu("NVIDIA L4", (8, 9), 58, 48 * MIB), 101_376)
H200 = Card(Gpu("NVIDIA H200", (9, 0), 132, 60 * MIB), 232_448)
RTX_5090 = Card(Gpu("NVIDIA GeForce RTX 5090", (12, 0), 170, 96 * MIB), 101_376)
CARDS = (A100, A10, L4, H200, RTX_5090)
