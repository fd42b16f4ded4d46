"""The pipeline: reading, parsing and embedding at once, each a little ahead of the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from indexer.incremental.intake import Intake
from indexer.incremental.plan import Plan
from indexer.pipeline.embedding import EmbeddingStage, Encoder
from indexer.pipeline.reading import read_batches
from indexer.pipeline.records import ParsedBatch
from indexer.pipeline.vectors import Digests, VectorStore
from indexer.pipeline.workers import Workers
from indexer.progress import Progress
from indexer.report import Clock
from indexer.setup import Setup
from indexer.stopping import Stop
from rag.types import Float32, RowMask


class VectorSource(Protocol):
    """Vectors that were computed before."""

    def find_vectors(self, digests: Digests) -> tuple[RowMask, Float32]:
        """Which of the texts it has (bool (n,)), and float32 (m, d), the vectors of those."""
        ...


class Pipeline:
    """Fills spool and vectors from a plan; `embedded` counts what the encoder was given."""

    def __init__(
        self,
        setup: Setup,
        store: VectorStore,
        encoder: Encoder,
        sources: Sequence[VectorSource],
        stop: Stop,
    ) -> None:
        self._setup, self._store, self._encoder = setup, store, encoder
        self._sources, self._stop = sources, stop
        self._queued = 0
        self.embedded = 0

    def run(self, intake: Intake, plan: Plan, progress: Progress, clock: Clock) -> None:
        """Raises BuildStopped, and whatever ends a build; what was done until then is kept."""
        options = self._setup.options
        with EmbeddingStage(self._encoder, self._store, self._stop, self._advance) as embedding:
            for batch in intake.restore():
                self._embed(batch, embedding)
            work = intake.work(plan)
            batches = read_batches(self._setup.source, work, intake, ahead=options.read_ahead)
            with (
                Workers(self._setup.stage_options(), options.limits) as workers,
                progress.stage("read and chunk", plan.total) as step,
            ):
                for payload in workers.parse(batches, self._stop):
                    batch = intake.add(payload)
                    self._embed(batch, embedding)
                    step.advance(len(batch.documents) + len(batch.failures))
            clock.lap("read")
            with progress.stage("embed", self._queued) as step:
                done = self.embedded
                step.advance(done)
                while embedding.is_busy(0.5):
                    step.advance(self.embedded - done)
                    done = self.embedded
                step.advance(self.embedded - done)
        clock.lap("embed")

    def _embed(self, batch: ParsedBatch, stage: EmbeddingStage) -> None:
        """Borrows the vectors that there are; the encoder makes the others."""
        missing = self._store.missing(batch.digests)
        for source in self._sources:
            if len(missing):
                found, vectors = source.find_vectors(batch.digests[missing])
                if found.any():
                    self._store.borrow(batch.digests[missing[found]], vectors)
                missing = missing[~found]
        if len(missing):
            texts = batch.texts(missing)
            self._queued += stage.put(batch.digests[missing], batch.tokens[missing], texts)

    def _advance(self, count: int) -> None:
        self.embedded += count
