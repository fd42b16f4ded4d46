from __future__ import annotations

import numpy as np

from eval.results import Result
from eval.verdict import verdict


def result(**scores: list[float]) -> Result:
    return Result(
        dataset="d", split="test", query_ids=[f"q{i}" for i in range(len(scores["hybrid"]))],
        results={mode: {"nDCG@10": float(np.mean(s))} for mode, s in scores.items()},
        intervals={}, per_query={mode: {"nDCG@10": s} for mode, s in scores.items()},
    )  # fmt: skip


def test_the_hybrid_is_held_against_the_better_leg() -> None:
    low, high = [0.2] * 20, [0.4] * 20
    said = verdict(result(sparse=low, dense=high, hybrid=[0.6] * 18 + [0.4, 0.2]))
    assert said is not None
    assert "+42.5% against dense, the better leg" in said
    assert "better on 18 queries, worse on 1, the same on 1" in said
    assert "chance" not in said


def test_what_chance_may_have_made_is_said() -> None:
    said = verdict(result(sparse=[0.5] * 10, hybrid=[0.6] + [0.5] * 9))
    assert said is not None
    assert "against sparse, the only leg asked" in said
    assert "chance may have made" in said


def test_without_a_leg_there_is_nothing_to_say() -> None:
    assert verdict(result(hybrid=[0.5, 0.6])) is None
