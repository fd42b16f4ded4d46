"""Queries as texts and vectors into ranked rows: both legs searched, their hits fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rag.errors import InvalidRequest
from rag.index.protocol import Evidence, Index
from rag.index.topk import no_hits
from rag.retrieval.feedback import CANDIDATES, USUAL, Asked, Feedback, measure_scale
from rag.retrieval.fusion import DEFAULT, Fusion, make_fusion, weighted
from rag.types import NO_ROW, Hits, Int64, Mode, RowMask

DEPTH = 1000
"""How deep a leg is searched, at most. What is searched does not depend on a query's `top_k`, so
that a smaller `top_k` gives a prefix of a larger one; only feedback fusion leaves out what lies
below its candidates where nobody asked for it."""


class Found(NamedTuple):
    """What a search found for n queries: the ranking that answers, and each leg's hits.

    The first answers[i] of query i's ranking are explained by `dense` and `sparse`, the rest by
    `deep`, the same legs searched deeper. A leg that was not asked is None.
    """

    ranking: Hits
    dense: Hits | None
    sparse: Hits | None
    answers: Int64
    deep: tuple[Hits, Hits] | None


class Ranker:
    """Ranks the rows of one index. Safe to call from several threads.

    An index without `Evidence` (see rag/index/protocol.py) cannot be asked what its passages say:
    'feedback' is then 'weighted' of the same `dense_weight`.
    """

    def __init__(self, index: Index, *, depth: int = DEPTH) -> None:
        self._index = index
        self._depth = depth
        self._fusion = make_fusion(index.manifest.fusion or DEFAULT)
        self._scale = USUAL
        self._evidence = index if isinstance(index, Evidence) else None
        if self._evidence is not None:
            self._scale = measure_scale(self._evidence, index.manifest.counts["chunks"])

    def rank(
        self,
        asked: Asked,
        *,
        top_k: int,
        legs: Mode = Mode.HYBRID,
        allowed: RowMask | None = None,
        fusion: Mapping[str, Any] | None = None,
    ) -> Found:
        """Ranks rows for queries whose vectors are known.

        At least `top_k` rows for each, where so many are found. `fusion` overrides the index's
        own. Raises InvalidRequest.
        """
        if legs is not Mode.HYBRID:
            return self._one_leg(asked, legs, allowed)
        method = self._fusion if fusion is None else make_fusion(fusion)
        if isinstance(method, Feedback):
            if self._evidence is not None:
                return self._feedback(method, self._evidence, asked, top_k, allowed)
            method = _plain(method)
        both = self._both(asked, self._depth, allowed)
        ranking = method(both, self._depth)
        return Found(ranking, *both, _count(ranking), None)

    def _feedback(
        self,
        method: Feedback,
        index: Evidence,
        asked: Asked,
        top_k: int,
        allowed: RowMask | None,
    ) -> Found:
        both = self._both(asked, min(CANDIDATES, self._depth), allowed)
        ranking = method.fuse(both, asked, index, self._scale)
        answers = _count(ranking)
        if top_k <= CANDIDATES:
            return Found(ranking, *both, answers, None)
        deep = self._both(asked, self._depth, allowed)
        rest = _plain(method)(deep, 2 * self._depth)
        return Found(_append(ranking, rest, self._depth), *both, answers, deep)

    def _both(self, asked: Asked, depth: int, allowed: RowMask | None) -> tuple[Hits, Hits]:
        return (
            self._index.search_dense(asked.vectors, depth, allowed),
            self._index.search_sparse(asked.texts, depth, allowed),
        )

    def _one_leg(self, asked: Asked, legs: Mode, allowed: RowMask | None) -> Found:
        if legs is Mode.DENSE:
            hits = self._index.search_dense(asked.vectors, self._depth, allowed)
            return Found(hits, hits, None, _count(hits), None)
        if legs is Mode.SPARSE:
            hits = self._index.search_sparse(asked.texts, self._depth, allowed)
            return Found(hits, None, hits, _count(hits), None)
        raise InvalidRequest(f"legs is {legs!r}; use hybrid, dense or sparse")


def _plain(method: Feedback) -> Fusion:
    """What ranks the rows whose passages are not read."""
    weights = (method.dense_weight, 1.0 - method.dense_weight)
    return lambda legs, depth: weighted(legs, depth, weights=weights)


def _count(hits: Hits) -> Int64:
    """How many rows each query has: int64 (n,)."""
    return np.asarray((hits.rows != NO_ROW).sum(axis=1), dtype=np.int64)


def _append(ranking: Hits, rest: Hits, depth: int) -> Hits:
    """`ranking`, then what `rest` has beside it, with scores that go on below: depth `depth`."""
    joined = no_hits(len(ranking.rows), depth)
    for line, (rows, more) in enumerate(zip(ranking.rows, rest.rows, strict=True)):
        first = rows[rows != NO_ROW][:depth]
        new = (more != NO_ROW) & ~np.isin(more, first)
        further = more[new][: depth - len(first)]
        end = len(first) + len(further)
        joined.rows[line, :end] = np.concatenate([first, further])
        joined.scores[line, : len(first)] = ranking.scores[line, : len(first)]
        if len(further):
            last = ranking.scores[line, len(first) - 1] if len(first) else np.float32(1.0)
            joined.scores[line, len(first) : end] = (
                rest.scores[line][new][: len(further)] * np.float32(0.999) * last
            )
    return joined
