"""What a result says in one sentence: is the hybrid better than the better of its legs?"""

from __future__ import annotations

from eval.results import Result
from eval.statistics import compare_paired

MEASURE = "nDCG@10"
ALPHA = 0.05


def verdict(result: Result) -> str | None:
    """The hybrid against the leg with the better mean, paired by query; None without both."""
    if MEASURE not in result.results.get("hybrid", {}):
        return None
    legs = {mode: scores[MEASURE] for mode, scores in result.results.items() if mode != "hybrid"}
    if not legs:
        return None
    leg = max(legs, key=lambda mode: legs[mode])
    found = compare_paired(result.scores(leg, MEASURE), result.scores("hybrid", MEASURE))
    share = (
        f"{found.difference / found.mean_a:+.1%}" if found.mean_a else f"{found.difference:+.4f}"
    )
    sure = "" if found.p < ALPHA else "; a difference that chance may have made"
    better = "the better leg" if len(legs) > 1 else "the only leg asked"
    return (
        f"{MEASURE} of the hybrid is {found.mean_b:.4f}, {share} against {leg}, {better}"
        f" (p = {found.p:.4f}{sure}): better on {found.wins} queries, worse on {found.losses},"
        f" the same on {found.ties}."
    )
