from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import InvalidRequest
from rag.retrieval.feedback import Feedback
from rag.retrieval.fusion import (
    METHODS,
    distribution,
    make_fusion,
    reciprocal_rank,
    theoretical,
    weighted,
    zscore,
)
from rag.types import NO_ROW, Hits


def hits(*lines: list[tuple[int, float]], k: int) -> Hits:
    rows = np.full((len(lines), k), NO_ROW, dtype=np.int64)
    scores = np.full((len(lines), k), -np.inf, dtype=np.float32)
    for q, line in enumerate(lines):
        for place, (row, score) in enumerate(line):
            rows[q, place], scores[q, place] = row, score
    return Hits(rows, scores)


PLAIN = tuple(method for method in METHODS if method != "feedback")


def test_reciprocal_rank_is_the_published_formula_up_to_its_scale() -> None:
    fused = reciprocal_rank([hits([(7, 9.0), (3, 1.0)], k=2), hits([(3, 5.0)], k=1)], 3)
    scale = 61 * 0.5
    assert fused.rows.tolist() == [[3, 7, NO_ROW]]
    np.testing.assert_allclose(
        fused.scores[0], [scale * (1 / 62 + 1 / 61), scale / 61, -np.inf], rtol=1e-6
    )


def test_first_on_both_legs_scores_one() -> None:
    leg = hits([(4, 0.5), (5, 0.25)], k=2)
    for method in ("rrf", "weighted", "theoretical"):
        fused = make_fusion({"method": method})([leg, leg], 2)
        assert fused.rows[0, 0] == 4
        assert fused.scores[0, 0] == pytest.approx(1.0)


def test_weighted_scales_each_leg_to_its_own_range() -> None:
    dense = hits([(1, 0.9), (2, 0.7), (3, 0.5)], k=3)
    sparse = hits([(3, 20.0), (1, 10.0)], k=2)
    fused = weighted([dense, sparse], 3, weights=(0.5, 0.5))
    assert fused.rows.tolist() == [[1, 3, 2]]
    np.testing.assert_allclose(fused.scores[0], [0.5, 0.5, 0.25], rtol=1e-6)


def test_a_lone_keyword_hit_counts_in_full() -> None:
    fused = weighted([hits([], k=1), hits([(8, 0.01)], k=1)], 2, weights=(0.5, 0.5))
    assert fused.rows.tolist() == [[8, NO_ROW]]
    assert fused.scores[0, 0] == pytest.approx(0.5)


def test_theoretical_keeps_what_the_weakest_hit_is_worth() -> None:
    dense = hits([(1, 0.6), (2, 0.2)], k=2)
    sparse = hits([(2, 10.0), (3, 5.0)], k=2)
    fused = theoretical([dense, sparse], 3, weights=(0.5, 0.5))
    assert fused.rows.tolist() == [[2, 1, 3]]
    np.testing.assert_allclose(fused.scores[0], [0.5 * 1.2 / 1.6 + 0.5, 0.5, 0.25], rtol=1e-6)


def test_zscore_adds_deviations_and_fills_what_a_leg_lacks_with_its_lowest() -> None:
    dense = hits([(1, 0.9), (2, 0.5), (3, 0.1)], k=3)
    sparse = hits([(3, 7.0), (1, 3.0)], k=3)
    z = np.sqrt(1.5)
    sums = {1: 0.5 * z - 0.5, 2: -0.5, 3: -0.5 * z + 0.5}
    fused = zscore([dense, sparse], 3, weights=(0.5, 0.5))
    assert fused.rows.tolist() == [[1, 3, 2]]
    wanted = [1 / (1 + np.exp(-sums[row])) for row in (1, 3, 2)]
    np.testing.assert_allclose(fused.scores[0], wanted, rtol=1e-5)


def test_distribution_spans_three_deviations_to_each_side() -> None:
    dense = hits([(1, 0.9), (2, 0.5), (3, 0.1)], k=3)
    fused = distribution([dense, hits([], k=3)], 3, weights=(1.0, 0.0))
    z = np.sqrt(1.5)
    np.testing.assert_allclose(fused.scores[0], [0.5 + z / 6, 0.5, 0.5 - z / 6], rtol=1e-5)


def test_hits_that_score_the_same_say_nothing_by_deviation() -> None:
    flat = hits([(4, 2.0), (5, 2.0)], k=2)
    assert zscore([flat, flat], 2).scores.tolist() == [[0.5, 0.5]]
    assert distribution([flat, flat], 2).scores.tolist() == [[0.5, 0.5]]


def test_feedback_is_made_with_its_options() -> None:
    assert make_fusion({"method": "feedback"}) == Feedback()
    options = {"dense_weight": 0.25, "passages": 3, "coverage": 0, "by_terms": 0.5}
    made = make_fusion({"method": "feedback", **options})
    assert made == Feedback(dense_weight=0.25, passages=3, coverage=0.0, by_terms=0.5)


def test_nothing_found_gives_padding() -> None:
    for method in PLAIN:
        fused = make_fusion({"method": method})([hits([], k=2), hits([], k=2)], 3)
        assert (fused.rows == NO_ROW).all()
        assert np.isneginf(fused.scores).all()


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ({}, "method"),
        ({"method": "magic"}, "magic"),
        ({"method": "weighted", "k": 60}, "fusion.k"),
        ({"method": "weighted", "dense_weight": 1.5}, "dense_weight"),
        ({"method": "weighted", "dense_weight": True}, "dense_weight"),
        ({"method": "rrf", "k": 0}, "fusion.k"),
        ({"method": "feedback", "passages": 2.5}, "fusion.passages"),
        ({"method": "feedback", "keywords": -1}, "fusion.keywords"),
        ({"method": "theoretical", "k": 1}, "fusion.k"),
    ],
)
def test_bad_fusions_are_named(reference: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        make_fusion(reference)


legs = st.lists(
    st.tuples(st.integers(0, 30), st.floats(-5, 50, width=32)),
    max_size=12,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: sorted(pairs, key=lambda p: (-p[1], p[0])))


@given(legs, legs, st.sampled_from(PLAIN), st.floats(0, 1))
def test_each_row_once_best_first_ties_by_row_and_smaller_depth_is_a_prefix(
    dense: list[tuple[int, float]],
    sparse: list[tuple[int, float]],
    method: str,
    weight: float,
) -> None:
    fusion = make_fusion({"method": method, "dense_weight": weight})
    both = [hits(dense, k=12), hits(sparse, k=12)]
    full = fusion(both, 30)
    found = full.rows[0][full.rows[0] != NO_ROW].tolist()
    assert sorted(found) == sorted({row for row, _ in dense} | {row for row, _ in sparse})
    keys = [(-s, r) for s, r in zip(full.scores[0], found, strict=False)]
    assert keys == sorted(keys)
    assert all(0 <= s <= 1.000001 for s in full.scores[0][: len(found)])
    part = fusion(both, 5)
    assert part.rows[0].tolist() == full.rows[0, :5].tolist()
