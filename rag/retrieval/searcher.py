"""Encoded queries in, explained passages out: both legs searched, fused, their rows looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from rag.errors import InvalidRequest
from rag.index import filters
from rag.index.kernels import find_places
from rag.index.protocol import Index
from rag.models.embedder import EncodedQuery
from rag.retrieval.feedback import Asked
from rag.retrieval.fusion import make_fusion
from rag.retrieval.ranking import DEPTH, Found, Ranker
from rag.types import NO_ROW, Float32, Hits, Int64, LegScore, Mode, Passage, Query


class Searcher:
    """Searches one index with queries that are encoded already. Safe to call from threads."""

    def __init__(self, index: Index, *, depth: int = DEPTH) -> None:
        self._index = index
        self._depth = depth
        self._ranker = Ranker(index, depth=depth)

    @property
    def max_top_k(self) -> int:
        """The most passages that a query may ask for."""
        return self._depth

    def has_probabilities(self, query: Query) -> bool:
        """Whether the scores of its passages are probabilities of relevance."""
        fusion = query.fusion or self._index.manifest.fusion
        return query.legs is Mode.HYBRID and fusion.get("method") == "feedback"

    def validate(self, query: Query) -> None:
        """Raises InvalidRequest or InvalidFilter for a query that cannot be searched.

        Cheap: nothing is searched or selected for it.
        """
        if not query.text.strip():
            raise InvalidRequest("query is empty; send the text to search for")
        if not 1 <= query.top_k <= self._depth:
            raise InvalidRequest(f"top_k is {query.top_k}; use 1 to {self._depth}")
        if query.fusion is not None:
            make_fusion(query.fusion)
        if query.where is not None:
            filters.parse(query.where)

    def find(
        self, queries: Sequence[Query], encoded: Sequence[EncodedQuery | None]
    ) -> list[list[Passage]]:
        """The passages of every query, in order, each best first.

        The queries are valid (see `validate`); those with equal filters share one pass over each
        leg. `encoded` may be None for a query that does not ask the dense leg.
        """
        passages: list[list[Passage]] = [[] for _ in queries]
        for members in _groups(queries):
            for place, found in zip(members, self._group(queries, encoded, members), strict=True):
                passages[place] = found
        return passages

    def _group(
        self,
        queries: Sequence[Query],
        encoded: Sequence[EncodedQuery | None],
        members: Sequence[int],
    ) -> list[list[Passage]]:
        """Passages of queries that share filter, legs and fusion."""
        first = queries[members[0]]
        found = self._ranker.rank(
            _asked([queries[i].text for i in members], [encoded[i] for i in members]),
            top_k=max(queries[i].top_k for i in members),
            legs=first.legs,
            allowed=None if first.where is None else self._index.select(first.where),
            fusion=first.fusion,
        )
        return self._passages(found, [queries[place].top_k for place in members])

    def _passages(self, found: Found, depths: Sequence[int]) -> list[list[Passage]]:
        """Passages of every query, at most as many as its depth."""
        ranked = np.ascontiguousarray(found.ranking.rows[:, : max(depths)])
        legs = [_explain(hits, ranked) for hits in (found.dense, found.sparse)]
        if found.deep is not None:
            deep = [_explain(hits, ranked) for hits in found.deep]
            for line, answers in enumerate(found.answers.tolist()):
                for leg, deeper in zip(legs, deep, strict=True):
                    leg[line][answers:] = deeper[line][answers:]
        counts = np.minimum((ranked != NO_ROW).sum(axis=1), depths).tolist()
        wanted = [line[:count] for line, count in zip(ranked, counts, strict=True)]
        chunks = iter(self._index.chunks(np.concatenate(wanted)))
        scores = found.ranking.scores[:, : max(depths)].tolist()
        return [
            [
                Passage(place + 1, chunk.chunk_id, chunk, line[place], dense[place], sparse[place])
                for place, chunk in enumerate(islice(chunks, count))
            ]
            for count, line, dense, sparse in zip(counts, scores, *legs, strict=True)
        ]


def _asked(texts: Sequence[str], encoded: Sequence[EncodedQuery | None]) -> Asked:
    """The queries of one group; without vectors where the group does not ask the dense leg."""
    known = [query for query in encoded if query is not None]
    if len(known) < len(texts):
        return Asked(texts, np.zeros((len(texts), 0), np.float32), np.ones(len(texts), np.float32))
    return Asked(
        texts,
        np.stack([query.vector for query in known]),
        np.array([query.readable for query in known], dtype=np.float32),
    )


def _explain(hits: Hits | None, rows: Int64) -> list[list[LegScore | None]]:
    """Where one leg placed each of `rows` (n, t); None where it did not find it, or was not
    asked.
    """
    if hits is None or not hits.rows.shape[1]:
        return [[None] * rows.shape[1] for _ in rows]
    places: Int64 = np.empty(rows.shape, dtype=np.int64)
    own: Float32 = np.empty(rows.shape, dtype=np.float32)
    find_places(*hits, rows, places, own)
    seen: list[list[int]] = places.tolist()
    scores: list[list[float]] = own.tolist()
    return [
        [
            None if place < 0 else LegScore(place + 1, score)
            for place, score in zip(found, scored, strict=True)
        ]
        for found, scored in zip(seen, scores, strict=True)
    ]


def _groups(queries: Sequence[Query]) -> list[list[int]]:
    """Positions of queries that may share one search, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, query in enumerate(queries):
        key = (str(query.legs), _key(query.where), _key(query.fusion))
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _key(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else json.dumps(value, sort_keys=True, default=str)


def needs_vector(query: Query) -> bool:
    """Whether `query` asks the dense leg."""
    return query.legs is not Mode.SPARSE
