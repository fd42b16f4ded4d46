"""Queries in, explained passages out: embed, search both legs, fuse."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rag.errors import InvalidRequest
from rag.index.protocol import Index
from rag.models.embedder import Embedder
from rag.retrieval.fusion import make_fusion
from rag.retrieval.ranking import DEPTH as DEPTH
from rag.retrieval.ranking import Found, Ranker
from rag.types import NO_ROW, Float32, Hits, LegScore, Mode, Passage, Query


class Retrieved(NamedTuple):
    """The passages of one query, best first, and where the time of its batch went.

    `timings_ms` has the keys `embed` and `search`, in milliseconds.
    """

    passages: list[Passage]
    timings_ms: dict[str, float]


class Retriever:
    """Searches one index with one embedder. Safe to call from several threads."""

    def __init__(self, index: Index, embedder: Embedder, *, depth: int = DEPTH) -> None:
        self._index = index
        self._embedder = embedder
        self._depth = depth
        self._ranker = Ranker(index, embedder, depth=depth)

    @property
    def max_top_k(self) -> int:
        """The most passages that a query may ask for."""
        return self._depth

    def validate(self, query: Query) -> None:
        """Raises InvalidRequest or InvalidFilter for a query that `search` would refuse."""
        if not query.text.strip():
            raise InvalidRequest("query is empty; send the text to search for")
        if not 1 <= query.top_k <= self._depth:
            raise InvalidRequest(f"top_k is {query.top_k}; use 1 to {self._depth}")
        if query.fusion is not None:
            make_fusion(query.fusion)
        if query.where is not None:
            self._index.select(query.where)

    def search(self, queries: Sequence[Query]) -> list[Retrieved]:
        """Answers every query, in order; queries with equal filters share one pass over each leg.

        Raises InvalidRequest or InvalidFilter if any query is invalid.
        """
        for query in queries:
            self.validate(query)
        started = time.perf_counter()
        vectors = self._embed(queries)
        embedded = time.perf_counter()
        passages: list[list[Passage]] = [[] for _ in queries]
        for members in _groups(queries):
            for place, found in zip(members, self._group(queries, vectors, members), strict=True):
                passages[place] = found
        searched = time.perf_counter()
        timings = {"embed": (embedded - started) * 1e3, "search": (searched - embedded) * 1e3}
        return [Retrieved(found, dict(timings)) for found in passages]

    def _embed(self, queries: Sequence[Query]) -> Float32:
        """float32 (len(queries), d); zeros for queries that do not ask the dense leg."""
        wanted = [i for i, query in enumerate(queries) if query.legs is not Mode.SPARSE]
        vectors = np.zeros((len(queries), self._embedder.config.dimension), dtype=np.float32)
        if wanted:
            vectors[wanted] = self._embedder.embed_queries([queries[i].text for i in wanted])
        return vectors

    def _group(
        self, queries: Sequence[Query], vectors: Float32, members: Sequence[int]
    ) -> list[list[Passage]]:
        """Passages of queries that share filter, legs and fusion."""
        first = queries[members[0]]
        found = self._ranker.rank(
            [queries[i].text for i in members],
            vectors[list(members)],
            top_k=max(queries[i].top_k for i in members),
            legs=first.legs,
            allowed=None if first.where is None else self._index.select(first.where),
            fusion=first.fusion,
        )
        return [
            self._passages(found, line, queries[place].top_k) for line, place in enumerate(members)
        ]

    def _passages(self, found: Found, line: int, top_k: int) -> list[Passage]:
        rows = found.ranking.rows[line, :top_k]
        rows = rows[rows != NO_ROW]
        passages = []
        for place, (row, chunk) in enumerate(zip(rows, self._index.chunks(rows), strict=True)):
            dense, sparse = found.dense, found.sparse
            if found.deep is not None and place >= found.answers[line]:
                dense, sparse = found.deep
            passages.append(
                Passage(
                    rank=place + 1,
                    chunk_id=chunk.chunk_id,
                    chunk=chunk,
                    score=float(found.ranking.scores[line, place]),
                    dense=_leg_score(dense, line, int(row)),
                    sparse=_leg_score(sparse, line, int(row)),
                )
            )
        return passages


def _leg_score(hits: Hits | None, line: int, row: int) -> LegScore | None:
    if hits is None:
        return None
    places = np.flatnonzero(hits.rows[line] == row)
    if not places.size:
        return None
    return LegScore(rank=int(places[0]) + 1, score=float(hits.scores[line, places[0]]))


def _groups(queries: Sequence[Query]) -> list[list[int]]:
    """Positions of queries that may share one search, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, query in enumerate(queries):
        key = (str(query.legs), _key(query.where), _key(query.fusion))
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _key(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else json.dumps(value, sort_keys=True, default=str)
