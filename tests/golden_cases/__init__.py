"""Golden cases: the reference networks' numbers against the shipped code, one module an area."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Case:
    """The outcome of one comparison."""

    file: str
    name: str
    max_error: float  # largest absolute difference
    relative_error: float  # RMS of the difference over RMS of the expected values
    passed: bool
    note: str = ""


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The arrays of the file at `path`."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def errors(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and RMS of the difference relative to the RMS of `expected`."""
    if actual.shape != expected.shape:
        raise ValueError(f"shape {actual.shape}, expected {expected.shape}")
    difference = actual.astype(np.float64) - expected.astype(np.float64)
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    return float(np.abs(difference).max(initial=0.0)), float(np.sqrt(np.mean(difference**2))) / max(scale, 1e-30)
