"""The work of one build, stage by stage."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from indexer import assembly
from indexer.assembly import Selection
from indexer.encoders import PassageEncoder
from indexer.incremental.intake import Intake
from indexer.incremental.plan import Plan
from indexer.incremental.previous import Previous
from indexer.incremental.state import ObjectState, write_state
from indexer.incremental.vector_cache import VectorCache
from indexer.pipeline.records import Failure
from indexer.pipeline.run import Pipeline, VectorSource
from indexer.pipeline.spool import Spool
from indexer.pipeline.vectors import VectorStore
from indexer.progress import Progress
from indexer.report import REPORT, BuildReport, Clock, refuse_skipped, skipped
from indexer.setup import Setup
from indexer.stopping import Stop
from indexer.workspace import Workspace
from rag import __version__
from rag.errors import BuildError
from rag.index.bundle import ENCODER
from rag.index.dense import Built, build_chosen
from rag.index.dense.gpu import build_gpus
from rag.index.manifest import FORMAT, Manifest, canonical, chunks_digest, version_id
from rag.index.seal import inventory, write_manifest
from rag.index.sparse import write_sparse
from rag.models.encoder import reference
from rag.models.threads import usable_cpus
from rag.storage import is_remote
from rag.types import Float32

_PROGRAM = f"rag-containers {__version__}"
_PACED = 50
"""Fewer objects than this say too little of how long one takes."""


class Job:
    """`run` writes the bundle's files below `folder`, `seal` its manifest."""

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        work: Workspace,
        before: Previous | None,
        plan: Plan,
        progress: Progress,
        stop: Stop,
        clock: Clock,
    ) -> None:
        self._setup, self._options = setup, setup.options
        self._folder, self._work = folder, work
        self._before, self._plan = before, plan
        self._progress, self._stop, self._clock = progress, stop, clock
        self._references: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._digest = ""
        self._failures: list[Failure] = []
        self._measured: dict[str, Any] = {}
        self._embedded = 0
        self._encoder = self._passage_encoder()

    def run(self) -> None:
        """Everything but the manifest. Raises as `build` does."""
        store = VectorStore(self._work.vectors, self._setup.config.dimension)
        store.restore()
        try:
            with Spool(self._work.spool) as spool:
                intake = Intake(self._setup.source, spool, self._setup.usable(self._before))
                self._collect(spool, store, intake)
                selection = assembly.select(spool, intake.wanted)
                self._failures = [*intake.failures, *selection.repeated]
                self._check(selection)
                self._write(spool, store, selection)
        finally:
            store.close()

    def _collect(self, spool: Spool, store: VectorStore, intake: Intake) -> None:
        sources: list[VectorSource] = []
        if self._before is not None and self._setup.has_vectors(self._before):
            sources.append(self._before)
        cache = None
        if self._options.vector_cache is not None:
            cache = VectorCache(
                self._options.vector_cache, self._setup.encoder, store.dimension,
                self._work.scratch,
            )  # fmt: skip
            sources.append(cache)
        pipeline = Pipeline(self._setup, store, self._encoder.stage(), sources, self._stop)
        pipeline.run(intake, self._plan, self._progress, self._clock)
        self._embedded = pipeline.embedded
        spool.sync()
        with self._progress.stage("export encoder", 1) as step:
            self._encoder.prepare()
            step.advance()
        self._clock.lap("export")
        if cache is not None:
            cache.save(store)

    def _write(self, spool: Spool, store: VectorStore, selection: Selection) -> None:
        assembly.write_text(self._folder, spool, selection)
        self._digest = chunks_digest(assembly.chunk_ids(spool, selection))
        self._stop.check()
        self._clock.lap("chunks")
        path = self._work.scratch / "rows.f32"
        vectors = assembly.write_vectors(path, spool, selection, store)
        dense = self._dense(vectors)
        self._measured["dense"] = dense.measured
        del vectors
        path.unlink()
        self._stop.check()
        self._clock.lap("dense")
        corpus = assembly.count_terms(spool, selection)
        weight = self._setup.analyzer.weight
        sparse = write_sparse(self._folder, lambda: corpus, weight=weight, **self._options.sparse)
        self._stop.check()
        hangul = self._write_state(spool, selection, corpus.counts)
        self._clock.lap("sparse")
        self._describe(selection, hangul, dense.reference, sparse)

    def _dense(self, vectors: Float32) -> Built:
        """The dense leg, tuned for the queries that were given."""
        options, queries = self._options, None
        if options.tune_queries:
            queries = self._encoder.load().embed_queries(options.tune_queries)
        threads = options.threads or usable_cpus()
        built = build_chosen(
            self._folder, vectors, queries=queries, threads=threads,
            gpus=build_gpus(options.device, self._progress.note), note=self._progress.note,
            **options.dense,
        )  # fmt: skip
        if not built.met:
            self._progress.note("no dense index reached the recall target; the best one is kept")
        return built

    def _write_state(self, spool: Spool, selection: Selection, counts: NDArray[np.int32]) -> bool:
        """Writes the state; returns whether there is Korean script in the bundle."""
        found = False

        def kept() -> Iterator[ObjectState]:
            nonlocal found
            for e in spool.entries(selection.by_key):
                found = found or e.hangul
                yield ObjectState(*e.mark, e.record.doc_id, e.content, e.hangul, None, True)

        failed = [
            ObjectState(*f.mark, f.doc_id, f.content, False, f.reason, f.lasting)
            for f in self._failures
        ]
        failed.sort(key=lambda row: (row.key, row.doc_id))
        rows = heapq.merge(kept(), failed, key=lambda row: (row.key, row.doc_id))
        write_state(self._folder, rows, counts)
        return found

    def _describe(
        self, selection: Selection, hangul: bool, dense: dict[str, Any], sparse: dict[str, Any]
    ) -> None:
        self._references = {
            "encoder": reference(self._setup.config),
            "analyzer": self._setup.analyzer.reference(hangul=hangul),
            "chunker": self._setup.chunker.reference(),
            "dense": dense,
            "sparse": sparse,
            "fusion": self._options.fusion,
        }
        self._counts = {
            "documents": len(selection.documents),
            "chunks": len(selection.order),
            "skipped": len(self._failures),
            "terms": int(sparse["counts"]["terms"]),
        }

    def seal(self) -> BuildReport:
        """Writes the report and the manifest."""
        lines = skipped(self._failures)
        listed = [{"doc_id": line.doc_id, "reason": line.reason} for line in lines]
        (self._folder / REPORT).write_bytes(canonical({"skipped": listed}))
        files = inventory(self._folder)
        self._clock.lap("seal")
        manifest = self._manifest(files)
        write_manifest(self._folder, manifest)
        return BuildReport(
            version=manifest.version,
            folder=self._folder,
            documents=self._counts["documents"],
            chunks=self._counts["chunks"],
            skipped=lines,
            passed_over=dict(self._setup.source.passed_over),
            bytes=sum(entry.size for entry in manifest.files.values()),
            seconds=self._clock.seconds,
            changes={str(change): n for change, n in self._plan.counts.items()},
            embedded=self._embedded,
        )

    def _manifest(self, files: Any) -> Manifest:
        parts: dict[str, Any] = orjson.loads(
            orjson.dumps(self._references, option=orjson.OPT_NON_STR_KEYS)
        )
        uri = self._setup.source.uri
        return Manifest(
            version=version_id(self._digest, format=FORMAT, **parts),
            chunks_digest=self._digest,
            counts=self._counts,
            files=files,
            measured={
                **self._measured,
                "encoder": self._encoder.measured,
                "build": self._about(),
                "seconds": self._clock.seconds,
            },
            source={"uri": uri} if is_remote(uri) else {},
            program=_PROGRAM,
            **parts,
        )

    def _about(self) -> dict[str, Any]:
        """What the next build needs to know of this one."""
        about = {
            "parsing": self._setup.parsing,
            "bundle": self._setup.bundle,
            "runs_as": self._options.runs_as,
            "safetensors": self._options.safetensors,
        }
        read = self._plan.to_read
        before = None if self._before is None else self._before.about.get("pace")
        if read >= _PACED or (read and before is None):
            seconds = self._clock.seconds
            per_object = (seconds["read"] + seconds["embed"]) / read
            fixed = sum(seconds.values()) - seconds["read"] - seconds["embed"]
            return about | {"pace": {"object_s": round(per_object, 6), "fixed_s": round(fixed, 3)}}
        return about if before is None else about | {"pace": before}

    def _check(self, selection: Selection) -> None:
        total = self._plan.total
        lines = skipped(self._failures)
        if self._options.strict:
            refuse_skipped(lines, total)
        if not len(selection.order):
            reason = f"; the first: {lines[0].doc_id}: {lines[0].reason}" if lines else ""
            raise BuildError(f"none of {total} documents could be indexed{reason}")

    def _passage_encoder(self) -> PassageEncoder:
        before = self._before
        known = None
        if before is not None and before.manifest.encoder == reference(self._setup.config):
            alike = before.about.get("safetensors") == self._options.safetensors
            if alike and before.manifest.program == _PROGRAM:
                known = (before.encoder_folder, dict(before.manifest.measured["encoder"]))
        return PassageEncoder(
            self._setup.encoder_source, self._folder / ENCODER, self._setup.config,
            self._options, self._stop, known,
        )  # fmt: skip
