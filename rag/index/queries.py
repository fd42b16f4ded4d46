"""The terms of queries: analysed once, though several steps of a search ask for them."""

from __future__ import annotations

from collections.abc import Sequence

from rag.index.analyzer import Analyzer

KEPT = 1024


class QueryAnalysis:
    """An analyzer that remembers the last queries; safe to use from several threads."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._known: dict[str, list[str]] = {}

    def batch(self, queries: Sequence[str]) -> list[list[str]]:
        """The terms of each query. The lists are shared: do not change them."""
        known = self._known
        new = [query for query in dict.fromkeys(queries) if query not in known]
        found = dict(zip(new, self._analyzer.batch(new), strict=True)) if new else {}
        terms = [found[query] if query in found else known[query] for query in queries]
        if len(known) + len(found) > KEPT:
            self._known = found if len(found) <= KEPT else {}
        else:
            known.update(found)
        return terms
