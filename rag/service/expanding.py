"""The searches of one request: its query, or what a generator makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from rag.answering.expansion import SearchText, expand
from rag.errors import InvalidRequest
from rag.models.generator import Generator
from rag.retrieval.merging import merge_rankings
from rag.service.schemas import InvocationRequest
from rag.types import Mode, Passage, Query

POOL = 100
"""Passages of each of several queries that are merged, or as many as a request may ask for, if
that is more. It does not depend on a request's `top_k`, so that a smaller one gives a prefix."""


class Searches(NamedTuple):
    """What to search for, one query or several; `notes` say what did not work."""

    queries: list[Query]
    notes: tuple[str, ...] = ()


class Expander:
    """Expands queries with a generator that follows instructions; None: there is none here."""

    def __init__(self, generator: Generator | None, *, max_top_k: int = POOL) -> None:
        self._generator = generator
        self._pool = max(POOL, max_top_k)

    def validate(self, request: InvocationRequest) -> None:
        """Raises InvalidRequest for an expansion that this service cannot do."""
        if request.query_expansion != "none" and self._generator is None:
            raise InvalidRequest(
                f"query_expansion is '{request.query_expansion}' and this service has no generator"
                " endpoint; leave it out, or serve with a chat model as RAG_GENERATOR"
            )

    async def searches(
        self, request: InvocationRequest, query: Query, *, deadline: float
    ) -> Searches:
        """What the request wants searched in place of `query`; spends a share of the time left
        until `deadline`, a `time.monotonic()` moment. Raises InvalidRequest as `validate` does.
        """
        self.validate(request)
        if request.query_expansion == "none" or self._generator is None:
            return Searches([query])
        made = await expand(
            query.text,
            request.history(),
            method=request.query_expansion,
            generator=self._generator,
            deadline=deadline,
        )
        if len(made.searches) == 1:
            return Searches([replace(query, text=made.searches[0].text)], made.notes)
        return Searches([self._query(query, search) for search in made.searches], made.notes)

    def _query(self, query: Query, search: SearchText) -> Query:
        """One of several: a passage is compared with passages, so it asks the dense leg alone,
        unless the request asks for the other one.
        """
        passage_only = search.is_passage and query.legs is Mode.HYBRID
        legs = Mode.DENSE if passage_only else query.legs
        return replace(query, text=search.text, top_k=self._pool, legs=legs)


def merged(
    rankings: Sequence[Sequence[Passage]], top_k: int, *, min_score: float | None
) -> list[Passage]:
    """The passages of all searches. One search keeps its scores; of several, `min_score` holds
    for each search's own scores, before they are merged by rank.
    """
    kept = [
        [passage for passage in ranking if min_score is None or passage.score >= min_score]
        for ranking in rankings
    ]
    return kept[0] if len(kept) == 1 else merge_rankings(kept, top_k)
