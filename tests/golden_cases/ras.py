"""Repetition-aware sampling: the reference's draws against the shipped processor's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.golden_cases import Case
from tests.logits_processor import counts
from vllm_cosyvoice.sampling import SamplingOptions

LEAST_P = 1e-3
LEAST_EXPECTED = 5.0  # draws in a bin of the chi-square test; smaller bins are pooled
DRAWS = 5_000


def cases(data: Path, salt: str) -> Iterator[Case]:
    """One case for each set of logits; there are no weights, so `salt` changes nothing."""
    reference = np.load(data / "ras.npz")
    for name in sorted({key.split(".")[0] for key in reference.files}):
        logits = torch.from_numpy(reference[f"{name}.logits"])
        expected = reference[f"{name}.counts"].astype(np.float64)
        drawn = counts(logits, SamplingOptions(), reference[f"{name}.history"].tolist(), DRAWS)
        p = same_distribution_p(drawn, expected)
        difference = drawn / drawn.sum() - expected / expected.sum()
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
    counts, expected = _pooled(expected >= LEAST_EXPECTED, counts, expected)
    possible = expected > 0.0
    if counts[~possible].any():
        return 0.0
    return _tail((counts - expected)[possible] ** 2 / expected[possible])


def same_distribution_p(first: np.ndarray, second: np.ndarray) -> float:
    """The chance that two samples of one distribution differ as far as these counts do."""
    least = min(first.sum(), second.sum()) / (first.sum() + second.sum())
    first, second = _pooled((first + second) * least >= LEAST_EXPECTED, first, second)
    ratio = np.sqrt(second.sum() / first.sum())
    seen = first + second > 0.0
    return _tail((first * ratio - second / ratio)[seen] ** 2 / (first + second)[seen])


def _pooled(large: np.ndarray, *samples: np.ndarray) -> list[np.ndarray]:
    """The samples with all bins that are not `large` added up in a last one."""
    return [np.append(sample[large], sample[~large].sum()) for sample in samples]


def _tail(terms: np.ndarray) -> float:
    """The chance that a chi-square statistic, the sum of one term a bin, is this large."""
    if len(terms) == 1:
        return 1.0
    freedom = torch.tensor((len(terms) - 1) / 2.0, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(terms.sum() / 2.0, dtype=torch.float64)))
