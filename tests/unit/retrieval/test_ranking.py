from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eval.collection import Collection
from rag.errors import InvalidRequest
from rag.index.protocol import Evidence
from rag.retrieval.feedback import CANDIDATES, Asked
from rag.retrieval.fusion import METHODS, weighted
from rag.retrieval.ranking import Ranker
from rag.types import NO_ROW, Chunk, Float32, Hits, Int64, Mode, RowMask

ROWS = 400  # of the fixture `index`
TEXTS = ["검색 cache", "queue queue shard", "vector query 배포 배포", "없음"]
rng = np.random.default_rng(5)
QUERIES = rng.normal(size=(len(TEXTS), 24)) + 0.3
QUERIES = (QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)).astype(np.float32)
ASKED = Asked(TEXTS, QUERIES, np.array([0, 1, 0.4, 0], dtype=np.float32))


class Remote:
    """The same index, as one that cannot tell what its passages say."""

    def __init__(self, index: Collection) -> None:
        self._index = index
        self.manifest = index.manifest

    def search_dense(self, vectors: Float32, k: int, allowed: RowMask | None) -> Hits:
        return self._index.search_dense(vectors, k, allowed)

    def search_sparse(self, queries: Any, k: int, allowed: RowMask | None) -> Hits:
        return self._index.search_sparse(queries, k, allowed)

    def select(self, where: Any) -> RowMask:
        return self._index.select(where)

    def chunks(self, rows: Int64) -> list[Chunk]:
        return self._index.chunks(rows)


@pytest.mark.parametrize("method", METHODS)
def test_a_smaller_top_k_is_a_prefix_of_a_larger_one(index: Collection, method: str) -> None:
    ranker = Ranker(index)
    full = ranker.rank(ASKED, top_k=1000, fusion={"method": method}).ranking
    for line in full.rows:
        found = line[line != NO_ROW]
        assert sorted(found.tolist()) == list(range(ROWS))  # the dense leg finds all, once each
    finite = np.where(np.isneginf(full.scores), -1, full.scores)
    assert (np.diff(finite, axis=1) <= 0).all()
    for top_k in (1, CANDIDATES, CANDIDATES + 1):
        part = ranker.rank(ASKED, top_k=top_k, fusion={"method": method}).ranking
        assert part.rows[:, :top_k].tolist() == full.rows[:, :top_k].tolist()
        np.testing.assert_array_equal(part.scores[:, :top_k], full.scores[:, :top_k])


def test_the_default_reads_the_passages(index: Collection) -> None:
    assert isinstance(index, Evidence)
    ranker = Ranker(index)
    default = ranker.rank(ASKED, top_k=50).ranking
    named = ranker.rank(ASKED, top_k=50, fusion={"method": "feedback"}).ranking
    other = ranker.rank(ASKED, top_k=50, fusion={"method": "weighted"}).ranking
    assert default.rows.tolist() == named.rows.tolist()
    assert default.rows[:, :10].tolist() != other.rows[:, :10].tolist()


def test_an_index_that_cannot_tell_is_searched_by_scores(index: Collection) -> None:
    remote = Remote(index)
    assert not isinstance(remote, Evidence)
    found = Ranker(remote).rank(ASKED, top_k=10)
    legs = index.search_dense(QUERIES, 1000, None), index.search_sparse(TEXTS, 1000, None)
    assert found.ranking.rows.tolist() == weighted(legs, 1000).rows.tolist()


def test_filtered_rows_stay_out_however_deep(index: Collection) -> None:
    allowed = np.arange(ROWS) % 2 == 1
    ranking = Ranker(index).rank(ASKED, top_k=1000, allowed=allowed).ranking
    for line in ranking.rows:
        assert sorted(line[line != NO_ROW].tolist()) == np.flatnonzero(allowed).tolist()


def test_rows_below_the_candidates_are_explained_by_the_deeper_search(index: Collection) -> None:
    found = Ranker(index).rank(ASKED, top_k=300)
    assert found.deep is not None
    for line, answers in enumerate(found.answers):
        rows = found.ranking.rows[line]
        assert set(rows[:answers]) == set(found.dense.rows[line]) | set(found.sparse.rows[line]) - {
            NO_ROW
        }
        assert set(rows[answers:ROWS]) <= set(found.deep[0].rows[line])


@pytest.mark.parametrize("legs", [Mode.DENSE, Mode.SPARSE])
def test_one_leg_is_that_leg(index: Collection, legs: Mode) -> None:
    found = Ranker(index).rank(ASKED, top_k=5, legs=legs)
    want = {
        Mode.DENSE: index.search_dense(QUERIES, 1000, None),
        Mode.SPARSE: index.search_sparse(TEXTS, 1000, None),
    }[legs]
    assert found.ranking.rows.tolist() == want.rows.tolist()
    assert (found.dense is None) == (legs is Mode.SPARSE)
    assert (found.sparse is None) == (legs is Mode.DENSE)


def test_a_fusion_that_does_not_exist_is_refused(index: Collection) -> None:
    with pytest.raises(InvalidRequest, match="magic"):
        Ranker(index).rank(ASKED, top_k=5, fusion={"method": "magic"})
