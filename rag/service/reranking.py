"""The fused candidates read again by a reranker, in the time that a request can spare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rag.models.reranker import Reranker
from rag.service.batching import Batcher
from rag.types import Float32, LegScore, Passage

DEPTH = 50
"""Candidates that are read again. It does not depend on a request's `top_k`, so that a smaller
`top_k` gives a prefix of a larger one."""
SHARE = 0.5
"""Of the time left, where an answer is to follow."""
MARGIN_S = 0.05
"""Left to send the fused order, where reranking is the last stage."""


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
        depth: int = DEPTH,
        max_waiting: int = 1024,
        stalled_after_s: float = 120.0,
    ) -> None:
        self.depth = depth
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
        self, query: str, passages: Sequence[Passage], *, deadline: float, answers: bool
    ) -> list[Passage]:
        """All of `passages`: the first `depth` by descending score of the reranker, then the rest.

        Ties keep their order. A passage that was read has the reranker's score as its `score`, and
        its rank and score in `rerank`; all have new ranks from 1. `deadline` is the request's, a
        `time.monotonic()` moment; `answers` says that an answer has to be made before it, too.
        Raises a RequestError where there is no time, no room in the queue, or no score.
        """
        candidates = list(passages[: self.depth])
        if not candidates:
            return list(passages)
        left = deadline - time.monotonic()
        until = deadline - (left * (1 - SHARE) if answers else min(MARGIN_S, left / 2))
        texts = [passage.chunk.indexed_text for passage in candidates]
        scores = await self._batcher.submit(_Job(query, texts, until), deadline=until)
        order = np.argsort(-scores, kind="stable")
        read = [
            replace(
                candidates[place],
                rank=rank,
                score=float(scores[place]),
                rerank=LegScore(rank, float(scores[place])),
            )
            for rank, place in enumerate(order, start=1)
        ]
        rest = [
            replace(passage, rank=rank)
            for rank, passage in enumerate(passages[self.depth :], start=self.depth + 1)
        ]
        return read + rest

    async def close(self) -> bool:
        """Fails whoever still waits; True when no thread is left inside a library."""
        await self._batcher.close()
        await asyncio.to_thread(self._reranker.close)
        return await asyncio.to_thread(self._batcher.join, 0.5)

    def _run(self, jobs: Sequence[_Job]) -> list[Float32]:
        return [self._reranker.score(job.query, job.texts, deadline=job.deadline) for job in jobs]
