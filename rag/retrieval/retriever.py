"""Queries in, explained passages out: embed, search both legs, fuse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from rag.index.protocol import Index
from rag.models.embedder import Embedder, EncodedQuery, encode_queries
from rag.retrieval.ranking import DEPTH as DEPTH
from rag.retrieval.searcher import Searcher, needs_vector
from rag.types import Passage, Query


class Retrieved(NamedTuple):
    """The passages of one query, best first, and where the time of its batch went.

    `timings_ms` has the keys `embed` and `search`, in milliseconds.
    """

    passages: list[Passage]
    timings_ms: dict[str, float]


class Retriever:
    """One index and its query encoder, for callers that need no service; thread-safe.

    `searcher` is what it searches with.
    """

    def __init__(self, index: Index, embedder: Embedder, *, depth: int = DEPTH) -> None:
        self.searcher = Searcher(index, depth=depth)
        self._embedder = embedder

    def search(self, queries: Sequence[Query]) -> list[Retrieved]:
        """Answers every query, in order; queries with equal filters share one pass over each leg.

        Raises InvalidRequest or InvalidFilter if any query is invalid.
        """
        for query in queries:
            self.searcher.validate(query)
        started = time.perf_counter()
        wanted = [i for i, query in enumerate(queries) if needs_vector(query)]
        encoded: list[EncodedQuery | None] = [None] * len(queries)
        made = encode_queries(self._embedder, [queries[i].text for i in wanted])
        for place, one in zip(wanted, made, strict=True):
            encoded[place] = one
        embedded = time.perf_counter()
        passages = self.searcher.find(queries, encoded)
        searched = time.perf_counter()
        timings = {"embed": (embedded - started) * 1e3, "search": (searched - embedded) * 1e3}
        return [Retrieved(found, dict(timings)) for found in passages]
