"""One build: documents in, one sealed bundle out.

Stages: read, parse and chunk each document into a spool on disk; embed the chunks in order of
length; write chunks, both legs and the encoder in row order; seal. Only ids, lengths and vectors
are ever held for the whole corpus, and the vectors are memory-mapped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from indexer.chunking import Chunker, ChunkerOptions
from indexer.embedding import embed_spool
from indexer.encoders import prepare_encoder
from indexer.parsing import parse
from indexer.progress import Progress, Silent
from indexer.source import Item, Source
from indexer.spool import Spool
from rag import __version__
from rag.errors import BuildError, DocumentError, UnreadableDocument
from rag.index.analyzer import Analyzer, make_analyzer
from rag.index.bundle import ENCODER
from rag.index.chunks import DocumentRecord, metadata_problem, write_chunks
from rag.index.dense import Built, build_chosen
from rag.index.manifest import FORMAT, Manifest, canonical, chunks_digest, version_id
from rag.index.seal import inventory, write_manifest
from rag.index.sparse import build_sparse
from rag.models.encoder import EncoderConfig, reference, resolve
from rag.models.load import Backend, load_embedder
from rag.models.threads import usable_cpus
from rag.models.tokenizer import Tokenizer
from rag.retrieval.fusion import DEFAULT as DEFAULT_FUSION
from rag.storage import is_remote
from rag.types import Document, Float32

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What decides a bundle beside its documents, and how the work is done.

    `sparse` and `dense` are passed to `build_sparse` and `build_chosen`; `tune_queries` are texts
    to tune the dense index for (without: made from passages). They do not enter the version id,
    nor do `backend`, `device`, `precision` and `threads`, which say what embeds the passages, and
    `encoder_cache`, where exports of encoders are kept between builds.
    """

    encoder: str = "default"
    max_tokens: int | None = None
    truncate_dim: int | None = None
    prompts: dict[str, str] | None = None
    analyzer: str = "auto"
    chunker: ChunkerOptions = field(default_factory=ChunkerOptions)
    dense: dict[str, Any] = field(default_factory=dict)
    tune_queries: Sequence[str] = ()
    sparse: dict[str, Any] = field(default_factory=dict)
    fusion: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_FUSION))
    safetensors: bool = True
    strict: bool = False
    backend: Backend = "torch"
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    encoder_cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that is not in the bundle, and why."""

    doc_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `passed_over` counts the source's objects that are no documents, by why;
    `bytes` is the bundle's size, `seconds` the time of each stage.
    """

    version: str
    folder: Path
    documents: int
    chunks: int
    skipped: tuple[Skipped, ...]
    passed_over: dict[str, int]
    bytes: int
    seconds: dict[str, float]


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def build(
    source: Source, folder: Path, options: BuildOptions, progress: Progress | None = None
) -> BuildReport:
    """Builds and seals the bundle of `source` in the new or empty folder `folder`.

    A document that cannot be indexed is skipped and reported; with `options.strict` it raises
    BuildError after all documents were tried. Raises BuildError if nothing at all can be indexed,
    ConfigurationError for options that make no sense.
    """
    progress = progress or Silent()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BuildError(f"{folder} is not empty; name a new folder")
    clock = _Clock()
    encoder_source = resolve(options.encoder)
    config = EncoderConfig.read(
        encoder_source,
        truncate_dim=options.truncate_dim,
        max_tokens=options.max_tokens,
        prompts=options.prompts,
    )
    tokenizer = Tokenizer.load(encoder_source)
    chunker = Chunker(tokenizer, config, options.chunker)
    items = source.items()
    clock.lap("list")
    work = folder / ".work"
    work.mkdir()
    with Spool(work / "chunks.jsonl") as spool:
        records, skipped = _read_all(source, items, chunker, tokenizer, spool, progress)
        spool.finish()
        _check(options, spool, skipped, len(items))
        clock.lap("parse")
        with progress.stage("export encoder", 1) as step:
            measured = prepare_encoder(
                encoder_source,
                folder / ENCODER,
                config,
                safetensors=options.safetensors,
                cache=options.encoder_cache,
            )
            step.advance()
        clock.lap("export")
        vectors = _vectors(spool, work, folder / ENCODER, options, progress)
        clock.lap("embed")
        write_chunks(folder, sorted(records, key=lambda r: r.doc_id), spool.in_row_order())
        digest = chunks_digest(spool.chunk_id(p) for p in spool.row_order.tolist())
        clock.lap("chunks")
        dense = _dense(folder, vectors, options, progress)
        clock.lap("dense")
        analyzer = make_analyzer(options.analyzer)
        with progress.stage("analyse", len(spool)) as step:
            sparse = build_sparse(folder, _terms(analyzer, spool, step), **options.sparse)
        clock.lap("sparse")
        chunks = len(spool)
    del vectors
    _clear(work)
    (folder / REPORT).write_bytes(canonical({"skipped": [_line(s) for s in skipped]}))
    references = {
        "encoder": reference(config),
        "analyzer": analyzer.reference(),
        "chunker": chunker.reference(),
        "dense": dense.reference,
        "sparse": sparse,
        "fusion": options.fusion,
    }
    counts = {
        "documents": len(records),
        "chunks": chunks,
        "skipped": len(skipped),
        "terms": int(sparse["counts"]["terms"]),
    }
    manifest = _seal(
        folder,
        references,
        digest,
        counts,
        {"encoder": measured, "dense": dense.measured},
        source.uri,
    )
    clock.lap("seal")
    return BuildReport(
        version=manifest.version,
        folder=folder,
        documents=len(records),
        chunks=chunks,
        skipped=tuple(skipped),
        passed_over=dict(source.passed_over),
        bytes=sum(entry.size for entry in manifest.files.values()),
        seconds=clock.seconds,
    )


def _read_all(
    source: Source,
    items: Sequence[Item],
    chunker: Chunker,
    tokenizer: Tokenizer,
    spool: Spool,
    progress: Progress,
) -> tuple[list[DocumentRecord], list[Skipped]]:
    """Reads, parses and chunks every item into the spool."""
    records: list[DocumentRecord] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    with progress.stage("read and chunk", len(items)) as step:
        for item in items:
            try:
                if item.doc_id in seen:
                    raise DocumentError("another document has the same name in Unicode's NFC")
                record, document = _read(source, item)
                chunks = chunker.chunks(document)
                if not chunks:
                    raise DocumentError("it holds no text")
            except DocumentError as error:
                reason = str(error).removeprefix(f"{item.doc_id}: ")
                skipped.append(Skipped(item.doc_id, reason))
            else:
                seen.add(item.doc_id)
                records.append(record)
                spool.add(chunks, tokenizer.count([chunk.indexed_text for chunk in chunks]))
            step.advance()
    return records, skipped


def _read(source: Source, item: Item) -> tuple[DocumentRecord, Document]:
    data, extra = source.read(item)
    document = parse(data, doc_id=item.doc_id, uri=item.uri, extra=extra)
    if problem := metadata_problem(document.metadata):
        raise UnreadableDocument(f"its metadata cannot be kept: {problem}")
    record = DocumentRecord(
        doc_id=document.doc_id,
        uri=document.uri,
        title=document.title,
        lang=document.lang,
        format=document.format,
        metadata=document.metadata,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    return record, document


def _check(options: BuildOptions, spool: Spool, skipped: list[Skipped], total: int) -> None:
    if options.strict and skipped:
        first = skipped[0]
        raise BuildError(
            f"{len(skipped)} of {total} documents cannot be indexed and --strict was given;"
            f" the first: {first.doc_id}: {first.reason}"
        )
    if not len(spool):
        reason = f"; the first: {skipped[0].doc_id}: {skipped[0].reason}" if skipped else ""
        raise BuildError(f"none of {total} documents could be indexed{reason}")


def _vectors(
    spool: Spool, work: Path, encoder: Path, options: BuildOptions, progress: Progress
) -> np.memmap[Any, np.dtype[np.float32]]:
    """float32 (chunks, d) in row order, memory-mapped."""
    embedder = load_embedder(
        encoder, backend=options.backend, device=options.device, precision=options.precision,
        threads=options.threads,
    )  # fmt: skip
    shape = (len(spool), embedder.config.dimension)
    vectors = np.memmap(work / "vectors.f32", dtype=np.float32, mode="w+", shape=shape)
    with progress.stage("embed", len(spool)) as step:
        embed_spool(spool, embedder, vectors, step.advance)
    return vectors


def _dense(folder: Path, vectors: Float32, options: BuildOptions, progress: Progress) -> Built:
    """The dense leg, tuned for `tune_queries` where there are some."""
    queries = None
    if options.tune_queries:
        embedder = load_embedder(
            folder / ENCODER, backend=options.backend, device=options.device,
            precision=options.precision, threads=options.threads,
        )  # fmt: skip
        queries = embedder.embed_queries(options.tune_queries)
    threads = options.threads or usable_cpus()
    built = build_chosen(
        folder, vectors, queries=queries, threads=threads, note=progress.note, **options.dense
    )
    if not built.met:
        progress.note("no dense index reached the recall target; the best of them is kept")
    return built


def _terms(analyzer: Analyzer, spool: Spool, step: Any) -> Iterator[Sequence[str]]:
    """Every chunk's terms, in row order."""
    order = spool.row_order
    for start in range(0, len(order), 512):
        texts = [spool.indexed_text(p) for p in order[start : start + 512].tolist()]
        yield from analyzer.batch(texts)
        step.advance(len(texts))


def _seal(
    folder: Path,
    references: dict[str, Any],
    digest: str,
    counts: dict[str, int],
    measured: dict[str, Any],
    source: str,
) -> Manifest:
    parts: dict[str, Any] = orjson.loads(orjson.dumps(references, option=orjson.OPT_NON_STR_KEYS))
    manifest = Manifest(
        version=version_id(digest, format=FORMAT, **parts),
        chunks_digest=digest,
        counts=counts,
        files=inventory(folder),
        measured=measured,
        source={"uri": source} if is_remote(source) else {},
        program=f"rag-containers {__version__}",
        **parts,
    )
    write_manifest(folder, manifest)
    return manifest


def _clear(work: Path) -> None:
    for path in work.iterdir():
        path.unlink()
    work.rmdir()


def _line(skipped: Skipped) -> dict[str, str]:
    return {"doc_id": skipped.doc_id, "reason": skipped.reason}
