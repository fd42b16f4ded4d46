"""The searches of one request: its query, or what a generator makes of it."""

from __future__ import annotations

from typing import NamedTuple

from rag.answering.expansion import expand
from rag.errors import InvalidRequest
from rag.models.generator import Generator
from rag.retrieval.merging import POOL
from rag.service.schemas import InvocationRequest
from rag.types import Query


class Searches(NamedTuple):
    """What to search for, one query or several; `notes` say what did not work."""

    queries: list[Query]
    notes: tuple[str, ...] = ()


class Expander:
    """Expands queries with a generator that follows instructions; None: there is none here."""

    def __init__(self, generator: Generator | None, *, max_top_k: int = POOL) -> None:
        self._generator = generator
        self._pool = max(POOL, max_top_k)

    @property
    def expands(self) -> bool:
        """Whether there is a generator to ask."""
        return self._generator is not None

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
        return Searches(made.queries(query, self._pool), made.notes)
