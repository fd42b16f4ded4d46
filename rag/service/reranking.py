"""The fused candidates read again by a reranker, in the time that a request can spare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rag.models.reranker import Reranker
from rag.retrieval.merging import RERANK_DEPTH, reordered
from rag.service.batching import Batcher
from rag.types import Float32, Passage

_RECENT = 0.2  # weight of the last duration in the usual one


class _Job(NamedTuple):
    query: str
    texts: list[str]
    deadline: float


class Reranking:
    """A reranker behind a batcher of its own; `depth` candidates of each request are read.

    One request is one batch: its passages fill what a model takes at once. A remote reranker has
    several requests under way. Lives on the event loop that first uses it.
    """

    def __init__(
        self,
        reranker: Reranker,
        *,
        depth: int = RERANK_DEPTH,
        max_waiting: int = 1024,
        stalled_after_s: float = 120.0,
    ) -> None:
        self.depth = depth
        self.usual_s = 0.0
        """How long reranking one request has taken lately, in seconds; 0 before the first."""
        self._reranker = reranker
        self._batcher: Batcher[_Job, Float32] = Batcher(
            self._run,
            cost=lambda job: 1,
            budget=1,
            max_waiting=max_waiting,
            name="rerank",
            workers=reranker.concurrency,
            stalled_after_s=stalled_after_s,
        )

    @property
    def healthy(self) -> bool:
        return self._batcher.healthy

    async def rerank(
        self, query: str, passages: Sequence[Passage], *, until: float
    ) -> list[Passage]:
        """All of `passages`, the first `depth` reordered (see rag/retrieval/merging.py).

        `until` is a `time.monotonic()` moment. Raises a RequestError where there is no time, no
        room in the queue, or no score.
        """
        candidates = list(passages[: self.depth])
        if not candidates:
            return list(passages)
        began = time.monotonic()
        texts = [passage.chunk.indexed_text for passage in candidates]
        scores = await self._batcher.submit(_Job(query, texts, until), deadline=until)
        took_s = time.monotonic() - began
        self.usual_s += (took_s - self.usual_s) * (_RECENT if self.usual_s else 1.0)
        return reordered(passages, scores)

    async def close(self) -> bool:
        """Fails whoever still waits; True when no thread is left inside a library."""
        await self._batcher.close()
        await asyncio.to_thread(self._reranker.close)
        return await asyncio.to_thread(self._batcher.join, 0.5)

    def _run(self, jobs: Sequence[_Job]) -> Iterator[list[Float32]]:
        for job in jobs:
            yield [self._reranker.score(job.query, job.texts, deadline=job.deadline)]
