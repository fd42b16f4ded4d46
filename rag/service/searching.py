"""The search of one generation as a stage: both legs, fusion and rows to text, in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rag.models.embedder import EncodedQuery
from rag.models.threads import usable_cpus
from rag.retrieval.searcher import Searcher
from rag.service.batching import Batcher, BatchStats
from rag.types import Passage, Query

BATCH_QUERIES = 32
"""Few enough that nobody waits long for a batch to end, many enough to share its fixed cost."""

WORKERS = 4
"""At most; one for every two processors. A search spends half of its time outside of the
interpreter's lock, and one worker that makes larger batches takes less of what the encoder needs.
"""


class Searched(NamedTuple):
    """The passages of one query, best first; `run_ms` is how long its batch took."""

    passages: list[Passage]
    run_ms: float


class _Job(NamedTuple):
    query: Query
    encoded: EncodedQuery | None


class SearchStage:
    """A searcher behind a batcher. Lives on the event loop that first uses it."""

    def __init__(
        self,
        searcher: Searcher,
        *,
        max_waiting: int,
        stalled_after_s: float = 120.0,
        observe: Callable[[BatchStats], None] | None = None,
    ) -> None:
        self._searcher = searcher
        self._observe = observe
        self._batcher: Batcher[_Job, Searched] = Batcher(
            self._run,
            cost=lambda job: 1,
            budget=BATCH_QUERIES,
            max_waiting=max_waiting,
            name="search",
            workers=max(1, min(WORKERS, usable_cpus() // 2)),
            stalled_after_s=stalled_after_s,
            observe=observe,
        )

    @property
    def healthy(self) -> bool:
        return self._batcher.healthy

    @property
    def depth(self) -> int:
        """How many queries wait."""
        return self._batcher.depth

    async def search(
        self, query: Query, encoded: EncodedQuery | None, *, deadline: float
    ) -> Searched:
        """What `Searcher.find` finds for a valid query; raises what `Batcher.submit` raises."""
        return await self._batcher.submit(_Job(query, encoded), deadline=deadline)

    def at_once(self, queries: Sequence[Query], encoded: Sequence[EncodedQuery]) -> list[Searched]:
        """What `search` answers, on the calling thread, together and without a wait."""
        jobs = [_Job(*pair) for pair in zip(queries, encoded, strict=True)]
        began = time.monotonic()
        found = self._search(jobs)
        if self._observe is not None:
            spent = time.monotonic() - began
            self._observe(BatchStats(len(jobs), len(jobs), [], spent))
        return found

    async def close(self) -> bool:
        """Fails whoever still waits; True when no thread is left inside a library."""
        await self._batcher.close()
        return await asyncio.to_thread(self._batcher.join, 0.5)

    def _run(self, jobs: Sequence[_Job]) -> Iterator[list[Searched]]:
        yield self._search(jobs)

    def _search(self, jobs: Sequence[_Job]) -> list[Searched]:
        began = time.perf_counter()
        found = self._searcher.find([job.query for job in jobs], [job.encoded for job in jobs])
        run_ms = (time.perf_counter() - began) * 1e3
        return [Searched(passages, run_ms) for passages in found]
