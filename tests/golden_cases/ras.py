"""Repetition-aware sampling: the reference's draws against the distribution that the shipped processor gives."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.golden_cases import Case
from tests.logits_processor import probabilities
from vllm_cosyvoice.sampling import SamplingOptions

LEAST_P = 1e-3
LEAST_EXPECTED = 5.0  # draws in a bin of the chi-square test; smaller bins are pooled


def cases(data: Path, salt: str) -> Iterator[Case]:
    """One case for each set of logits; there are no weights, so `salt` changes nothing."""
    draws = np.load(data / "ras.npz")
    for name in sorted({key.split(".")[0] for key in draws.files}):
        logits = torch.from_numpy(draws[f"{name}.logits"])
        counts = draws[f"{name}.counts"].astype(np.float64)
        [distribution] = probabilities(logits[None], [SamplingOptions()], [draws[f"{name}.history"].tolist()])
        expected = distribution.double().numpy() * counts.sum()
        p = chi_square_p(counts, expected)
        difference = (counts - expected) / counts.sum()
        variation = 0.5 * np.abs(difference).sum()
        yield Case(
            "ras.npz",
            name,
            np.abs(difference).max(),
            variation,
            p > LEAST_P,
            f"chi-square p {p:.3f}; relative: total variation",
        )


def chi_square_p(counts: np.ndarray, expected: np.ndarray) -> float:
    """The chance that draws from the `expected` distribution stray from it as far as `counts` do."""
    large = expected >= LEAST_EXPECTED
    counts = np.append(counts[large], counts[~large].sum())
    expected = np.append(expected[large], expected[~large].sum())
    if expected[-1] == 0.0:
        if counts[-1] > 0.0:
            return 0.0
        counts, expected = counts[:-1], expected[:-1]
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return float(
        torch.special.gammaincc(torch.tensor(freedom / 2.0), torch.tensor(statistic / 2.0, dtype=torch.float64))
    )
