"""The terms of queries: looked for once, though several steps of a search ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag.index.analyzer import Analyzer
from rag.types import Int64

KEPT = 1024


class QueryAnalysis:
    """An analyzer and a vocabulary that remember the last queries; safe to use from several
    threads.

    `ids` gives the ids of queries that are given as terms, as `SparseLeg.ids` does.
    """

    def __init__(
        self, analyzer: Analyzer, ids: Callable[[Sequence[Sequence[str]]], list[Int64]]
    ) -> None:
        self._analyzer = analyzer
        self._ids = ids
        self._known: dict[str, Int64] = {}

    def batch(self, queries: Sequence[str]) -> list[Int64]:
        """The ids of the terms of each query. The arrays are shared: do not change them."""
        known = self._known
        new = [query for query in dict.fromkeys(queries) if query not in known]
        found = dict(zip(new, self._ids(self._analyzer.batch(new)), strict=True)) if new else {}
        terms = [found[query] if query in found else known[query] for query in queries]
        if len(known) + len(found) > KEPT:
            self._known = found if len(found) <= KEPT else {}
        else:
            known.update(found)
        return terms
