"""Paired tests over queries: is one system better than another, by how much, how surely."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.errors import EvaluationError

Float64 = NDArray[np.float64]

PERMUTATIONS = 10_000
RESAMPLES = 10_000
SEED = 20240229
_BLOCK = 4_000_000
"""Signs or draws in memory at once."""
_EXACT = 13
"""Up to so many differences, all 2^n sign patterns are tried instead of a sample."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A over the same queries; differences are B - A.

    `p` is two-sided, of the paired randomisation test. `low` and `high` bound the mean difference
    (95 %, paired bootstrap). `effect` is Cohen's d for paired samples, None where every difference
    is the same. Wins are queries on which B is better.
    """

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p: float
    effect: float | None
    wins: int
    losses: int
    ties: int

    @property
    def n(self) -> int:
        return self.wins + self.losses + self.ties


def compare_paired(a: Float64, b: Float64, *, seed: int = SEED) -> Comparison:
    """Compares two systems' scores, float64 (n,), of the same n queries in the same order."""
    differences = _differences(a, b)
    low, high = bootstrap_interval(differences, seed=seed)
    return Comparison(
        mean_a=float(np.mean(a)),
        mean_b=float(np.mean(b)),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=randomisation_p(differences, seed=seed),
        effect=effect_size(differences),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
    )


def randomisation_p(
    differences: Float64,
    *,
    alternative: str = "two-sided",
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> float:
    """P of the paired randomisation test: under the null hypothesis each difference's sign is a
    coin toss.

    `alternative` is 'two-sided', or 'less' (the mean is below 0). All sign patterns are tried for
    up to 13 differences, else `permutations` random ones, and the observed one is counted among
    them. Fisher 1935; Smucker, Allan and Carterette, CIKM 2007.
    """
    if not differences.size:
        raise EvaluationError("there is no query to compare; both results are empty")
    observed = differences.sum()
    # Sums of the same numbers in another order differ in the last bits; those are equal sums.
    slack = 1e-12 * max(1.0, float(np.abs(differences).sum()))
    extreme = total = 0
    for signs in _sign_patterns(differences.size, permutations, seed):
        sums = signs @ differences
        if alternative == "two-sided":
            extreme += int((np.abs(sums) >= abs(observed) - slack).sum())
        else:
            extreme += int((sums <= observed + slack).sum())
        total += len(signs)
    if differences.size <= _EXACT:
        return extreme / total
    return (extreme + 1) / (total + 1)


def bootstrap_means(values: Float64, *, resamples: int = RESAMPLES, seed: int = SEED) -> Float64:
    """Means of `resamples` samples drawn from `values` with replacement, float64, ascending."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(1, values.size))
    found = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        found.append(values[rng.integers(values.size, size=(count, values.size))].mean(1))
    return np.sort(np.concatenate(found))


def bootstrap_interval(
    values: Float64, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean. Efron 1979; for retrieval: Sakai, SIGIR 2006."""
    if not values.size:
        raise EvaluationError("there is no query to measure; the result is empty")
    if values.min() == values.max():
        return float(values[0]), float(values[0])
    outside = (1.0 - level) / 2
    low, high = np.quantile(
        bootstrap_means(values, resamples=resamples, seed=seed), [outside, 1.0 - outside]
    )
    return float(low), float(high)


def effect_size(differences: Float64) -> float | None:
    """Cohen's d of paired samples: mean over standard deviation of the differences; 0 if there
    are none, and None where they are all the same (it has no bound there). Cohen 1988.
    """
    if not differences.any():
        return 0.0
    deviation = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    if deviation <= 1e-12 * abs(float(differences.mean())):
        return None
    return float(differences.mean()) / deviation


def holm(p_values: list[float]) -> list[float]:
    """P values adjusted for having made several tests. Holm, Scandinavian J. Statistics 1979."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, (len(p_values) - step) * p_values[place])
        adjusted[place] = min(1.0, highest)
    return adjusted


def _differences(a: Float64, b: Float64) -> Float64:
    if a.shape != b.shape or a.ndim != 1:
        raise EvaluationError(
            f"scores of {a.size} queries cannot be paired with scores of {b.size}; evaluate both"
            " on the same queries"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise EvaluationError("a score is not a finite number; evaluate again")
    return np.asarray(b - a, dtype=np.float64)


def _sign_patterns(n: int, permutations: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Blocks of patterns, (patterns, n), of -1 and 1."""
    if n <= _EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n)
        yield ((bits & 1) * 2 - 1).astype(np.float32)
        return
    rng = np.random.default_rng(seed)
    block = max(1, math.ceil(_BLOCK / n))
    for start in range(0, permutations, block):
        count = min(block, permutations - start)
        yield (rng.integers(0, 2, size=(count, n), dtype=np.int8) * 2 - 1).astype(np.float32)
