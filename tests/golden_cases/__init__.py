"""Golden cases: the reference networks' numbers against the shipped code, one module an area."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """The outcome of one comparison."""

    file: str
    name: str
    max_error: float  # largest absolute difference
    relative_error: float  # RMS of the difference over RMS of the expected values
    passed: bool
    note: str = ""


def errors(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and RMS of the difference relative to the RMS of `expected`."""
    if actual.shape != expected.shape:
        raise ValueError(f"shape {actual.shape}, expected {expected.shape}")
    difference = actual.astype(np.float64) - expected.astype(np.float64)
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    return float(np.abs(difference).max(initial=0.0)), float(np.sqrt(np.mean(difference**2))) / max(scale, 1e-30)
