"""The gate before promotion: may a candidate replace what is in service?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.compare import paired_scores, pairs, parse_side
from eval.statistics import (
    SEED,
    Comparison,
    Float64,
    bootstrap_means,
    compare_paired,
    randomisation_p,
)
from rag.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says. `passed` is False where a loss beyond the margin is significant, and,
    with a strict gate, where such a loss is not ruled out. `non_inferior` is True where it is.
    """

    passed: bool
    reason: str
    comparison: Comparison
    p_loss: float
    non_inferior: bool


def gate(
    baseline: Float64,
    candidate: Float64,
    *,
    margin: float,
    alpha: float = 0.05,
    strict: bool = False,
    seed: int = SEED,
) -> Verdict:
    """Whether a candidate may replace a baseline, by their scores of the same queries, (n,).

    Fails if the candidate's mean is lower by significantly more than `margin`: a one-sided paired
    randomisation test of the differences plus the margin, at `alpha`. With `strict` it must also
    be non-inferior: the one-sided (1 - alpha) bootstrap bound of the mean difference lies above
    -margin. Walker and Nowacki, J. General Internal Medicine 2011. Raises EvaluationError.
    """
    if not 0 <= margin < 1 or not 0 < alpha < 0.5:
        raise EvaluationError(
            f"margin is {margin:g} and alpha {alpha:g}; use a margin from 0 to 1 and an alpha"
            " above 0 and below 0.5"
        )
    comparison = compare_paired(baseline, candidate, seed=seed)
    differences = candidate - baseline
    p_loss = randomisation_p(differences + margin, alternative="less", seed=seed)
    worst = float(np.quantile(bootstrap_means(differences, seed=seed), alpha))
    non_inferior = worst > -margin or (worst == 0.0 and margin == 0.0)
    lost = p_loss < alpha
    passed = not lost and (non_inferior or not strict)
    if lost:
        why = f"the loss is significantly beyond the margin of {margin:g} (p = {p_loss:.4f})"
    elif non_inferior:
        why = f"a loss beyond the margin of {margin:g} is ruled out (bound {worst:+.4f})"
    else:
        verdict = "not ruled out" if strict else "not significant"
        why = (
            f"a loss beyond the margin of {margin:g} is {verdict}"
            f" (p = {p_loss:.4f}, bound {worst:+.4f})"
        )
    return Verdict(passed, why, comparison, p_loss, non_inferior)


def gate_sides(
    baseline: str,
    candidate: str,
    *,
    measure: str,
    margin: float,
    alpha: float = 0.05,
    mode: str = "hybrid",
    strict: bool = False,
) -> tuple[Verdict, str]:
    """The gate over two results, 'PATH[:MODE]' each, and what it compared in words.

    `mode` is compared where neither path names one. Raises EvaluationError.
    """
    named = parse_side(baseline)[1] or parse_side(candidate)[1]
    suffix = "" if named else f":{mode}"
    [(a, b)] = pairs(baseline + suffix, candidate + suffix)
    scores = paired_scores(a, b, measure)
    verdict = gate(*scores, margin=margin, alpha=alpha, strict=strict)
    side = a.mode if a.mode == b.mode else f"{a.mode} -> {b.mode}"
    return verdict, f"{a.result.dataset} {side} {measure}"


def describe(verdict: Verdict, what: str) -> str:
    """The verdict in one line."""
    c = verdict.comparison
    return (
        f"{'pass' if verdict.passed else 'FAIL'}: {what} {c.mean_a:.4f} -> {c.mean_b:.4f}"
        f" ({c.difference:+.4f}, 95 % {c.low:+.4f} to {c.high:+.4f}, n = {c.n}): {verdict.reason}"
    )
