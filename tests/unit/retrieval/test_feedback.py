from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eval.collection import Collection
from rag.retrieval.calibration import Calibration, Scale
from rag.retrieval.feedback import (
    CANDIDATES,
    COMMON,
    REACH,
    TEMPERATURE,
    USUAL,
    Asked,
    Feedback,
    measure_scale,
)
from rag.types import NO_ROW, Float32, Hits

ROWS, WORDS = 400, 10  # of the fixture `index`
SCALE = Scale(0.1, 0.2)
REACHED = REACH * 0.2
Build = Callable[[list[list[str]], Float32], Collection]
rng = np.random.default_rng(11)


def unit(vectors: Any) -> Float32:
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(scaled, dtype=np.float32)


TEXTS = ["검색 cache", "queue queue shard", "index", "vector query 배포 배포", "없음", "서울 없음"]
QUERIES = unit(rng.normal(size=(len(TEXTS), 24)) + 0.3)


def ask(
    index: Collection,
    picked: list[int],
    *,
    readable: float = 1.0,
    method: Feedback | None = None,
    allowed: Any = None,
) -> Hits:
    texts, vectors = [TEXTS[i] for i in picked], QUERIES[picked]
    legs = [
        index.search_dense(vectors, CANDIDATES, allowed),
        index.search_sparse(texts, CANDIDATES, allowed),
    ]
    asked = Asked(texts, vectors, np.full(len(picked), readable, dtype=np.float32))
    return (method or Feedback()).fuse(legs, asked, index, SCALE)


def scaled(values: Any) -> Any:
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.ones_like(values)


def by_the_book(
    index: Collection, text: str, vector: Float32, trust: float, method: Feedback
) -> dict[int, float]:
    """The method as its description says it, on dense matrices of everything."""
    every = np.arange(ROWS)
    vectors = index.vectors(every).astype(np.float64)
    matrix = np.zeros((ROWS, WORDS))
    terms = index.passage_terms(every)
    for row in every:
        own = slice(terms.starts[row], terms.ends[row])
        matrix[row, terms.terms[own]] = terms.weights[own]
    asked = index.query_terms([text])
    bm25 = matrix[:, asked.terms] @ asked.counts
    has = matrix[:, asked.terms] > 0
    coverage = has @ asked.idf / asked.idf.sum() if asked.terms.size else np.zeros(ROWS)
    cosine = vectors @ vector

    sparse = [row for row in np.argsort(-bm25, kind="stable")[:CANDIDATES] if bm25[row] > 0]
    rows = sorted({*np.argsort(-cosine, kind="stable")[:CANDIDATES].tolist(), *sparse})
    kept = bm25[sparse[-1]] / bm25.max() if len(sparse) == CANDIDATES else 0.0
    sharpness = np.clip(np.sqrt(0.7 / max(1 - kept, 0.05)), 0.3, 3.0)
    dense_share, sparse_share = 2 * method.dense_weight * trust, 2 - 2 * method.dense_weight
    c, s, v = cosine[rows], bm25[rows], coverage[rows]
    common = vectors[rows] @ vectors[rows].mean(axis=0)
    own = c - COMMON * common
    score = dense_share * sharpness * np.maximum(1 - (own.max() - own) / REACHED, 0)
    score += sparse_share * (method.keywords * s / max(s.max(), 1e-9) + method.coverage * v)

    best = np.lexsort((rows, -score))[: method.passages]
    shares = np.exp((score[best] - score[best[0]]) / TEMPERATURE)
    shares /= shares.sum()
    units = matrix[rows] / np.maximum(np.linalg.norm(matrix[rows], axis=1, keepdims=True), 1e-9)
    learn = method.feedback * min(score.max(), 1.0)
    near = vectors[rows] @ (shares @ vectors[rows][best]) - common
    alike = units @ (shares @ units[best])
    by_terms = sparse_share * method.by_terms
    score = score + learn * (dense_share * scaled(near) + by_terms * scaled(alike))
    possible = dense_share * sharpness + sparse_share * (method.keywords + method.coverage)
    possible += (dense_share + by_terms) * method.feedback
    apart = (c[own.argmax()] - SCALE.mean) / SCALE.deviation
    means = method.calibration
    odds = means.slope * score / possible
    odds += trust * (means.by_cosine[0] + means.by_cosine[1] * apart)
    odds += (1 - trust) * (means.by_coverage[0] + means.by_coverage[1] * v.max())
    return dict(zip(rows, 1 / (1 + np.exp(-odds)), strict=True))


@pytest.mark.parametrize(
    ("method", "readable", "trust"),
    [
        (Feedback(), 1.0, 1.0),
        (Feedback(), 0.75, 0.5),
        (Feedback(), 0.2, 0.01),
        (Feedback(dense_weight=0.2, passages=1, coverage=0.0), 1.0, 1.0),
        (Feedback(feedback=0.0), 1.0, 1.0),
        (Feedback(by_terms=0.4), 1.0, 1.0),
        (Feedback(calibration=Calibration(3.0, (-1.0, 0.5), (-2.0, 1.0))), 0.75, 0.5),
    ],
)
def test_scores_are_what_the_description_says(
    index: Collection, method: Feedback, readable: float, trust: float
) -> None:
    fused = ask(index, list(range(len(TEXTS))), readable=readable, method=method)
    for q, text in enumerate(TEXTS):
        wanted = by_the_book(index, text, QUERIES[q], trust, method)
        rows = fused.rows[q][fused.rows[q] != NO_ROW].tolist()
        assert sorted(rows) == sorted(wanted)
        scores = fused.scores[q, : len(rows)]
        np.testing.assert_allclose(scores, [wanted[row] for row in rows], atol=2e-5)
        assert (np.diff(scores) <= 0).all()
        assert 0 <= scores.min() <= scores.max() <= 1


def test_a_query_is_ranked_alike_in_any_company(index: Collection) -> None:
    together = ask(index, [0, 1, 2, 3, 4, 5])
    for q in range(len(TEXTS)):
        alone = ask(index, [q])
        width = alone.rows.shape[1]
        assert together.rows[q, :width].tolist() == alone.rows[0].tolist()
        np.testing.assert_array_equal(together.scores[q, :width], alone.scores[0])
        assert (together.rows[q, width:] == NO_ROW).all()


def test_passages_that_say_the_same_tie_by_row(index: Collection) -> None:
    fused = ask(index, [0, 1, 3])
    for rows, scores in zip(fused.rows, fused.scores, strict=True):
        place = {row: i for i, row in enumerate(rows.tolist())}
        twins = [(row, row + 1) for row in place if row % 10 == 8 and row + 1 in place]
        assert twins
        for first, second in twins:
            assert scores[place[first]] == scores[place[second]]
            assert place[second] == place[first] + 1


def test_only_rows_that_the_legs_gave_come_back(index: Collection) -> None:
    allowed = np.arange(ROWS) % 3 == 0
    fused = ask(index, list(range(len(TEXTS))), allowed=allowed)
    rows = fused.rows[fused.rows != NO_ROW]
    assert rows.size
    assert allowed[rows].all()
    nothing = ask(index, [0, 4], allowed=np.zeros(ROWS, dtype=np.bool_))
    assert nothing.rows.shape == (2, 0)


def test_an_unreadable_query_follows_the_keywords(index: Collection) -> None:
    plain = Feedback(feedback=0.0, coverage=0.0)
    keywords = index.search_sparse(TEXTS, ROWS, None)
    unreadable = ask(index, list(range(len(TEXTS))), readable=0.0, method=plain).rows
    for q in (0, 1, 3):
        best = keywords.rows[q][keywords.scores[q] == keywords.scores[q, 0]]
        assert unreadable[q, 0] in best
    # Without any known term, the little that the dense leg says still ranks.
    dense = index.search_dense(QUERIES[4:5], 10, None).rows
    assert unreadable[4, 0] == dense[0, 0]
    assert set(unreadable[4, :5]) <= set(dense[0])


def test_what_resembles_the_best_gains(build: Build) -> None:
    """Row 2 has none of the query's words and is no nearer to it than row 1, but is row 0's kin."""
    vectors = unit(np.array([[1, 0, 0, 0], [0.5, 0, 0.9, 0], [0.5, 0.9, 0, 0], [0, 0, 0, 1]]))
    vectors[0] = unit(np.array([[0.9, 0.4, 0, 0]]))
    terms = [["shard", "queue", "서울"], ["cache"], ["queue", "서울"], ["index"]]
    index = build(terms, vectors)
    asked = Asked(["shard"], unit(np.array([[1, 0, 0, 0]])), np.ones(1, dtype=np.float32))
    legs = [
        index.search_dense(asked.vectors, 10, None), index.search_sparse(asked.texts, 10, None)
    ]  # fmt: skip
    without = Feedback(feedback=0.0).fuse(legs, asked, index, SCALE)
    assert without.rows[0].tolist() == [0, 1, 2, 3]
    assert without.scores[0, 1] >= without.scores[0, 2]
    assert Feedback().fuse(legs, asked, index, SCALE).rows[0].tolist() == [0, 2, 1, 3]


def test_likeness_that_all_candidates_share_does_not_count(build: Build) -> None:
    """Rows 0 and 1 are as near to the query; row 1 lies where most of what was found lies."""
    vectors = unit(np.array([[3, 2, 0, 0], [3, 0, 2, 0], [1, 0, 4, 0], [1, 0, 4, 0.5]]))
    index = build([["queue"], ["queue"], ["cache"], ["cache"]], vectors)
    asked = Asked(["없음"], unit(np.array([[1, 0, 0, 0]])), np.ones(1, dtype=np.float32))
    legs = [
        index.search_dense(asked.vectors, 10, None), index.search_sparse(asked.texts, 10, None)
    ]  # fmt: skip
    assert legs[0].scores[0, 0] == legs[0].scores[0, 1]
    fused = Feedback(feedback=0.0).fuse(legs, asked, index, SCALE)
    assert fused.rows[0, :2].tolist() == [0, 1]
    assert fused.scores[0, 0] > fused.scores[0, 1]


def test_the_scale_is_that_of_cosines_between_passages(index: Collection, build: Build) -> None:
    every = index.vectors(np.arange(ROWS)[np.unique(np.linspace(0, 399, 256).astype(int))])
    cosines = (every @ every.T)[np.triu_indices(len(every), 1)]
    assert measure_scale(index, ROWS) == pytest.approx((cosines.mean(), cosines.std()), rel=1e-4)
    few = build([["queue"], [], ["서울"]], unit(rng.normal(size=(3, 4))))
    assert measure_scale(few, 3) == USUAL
