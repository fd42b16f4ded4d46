"""A collection indexed for evaluation: each document one passage, on the real two legs.

Nothing is chunked: a text longer than the encoder reads is cut by the encoder, so that the dense
leg is comparable with what the encoder scores by itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.datasets import CorpusLine, Dataset
from eval.vectors import SLICE, Advance, VectorCache
from rag import __version__
from rag.errors import EvaluationError, InvalidFilter
from rag.index.analyzer import Analyzer, make_analyzer
from rag.index.dense import DenseLeg, build_dense
from rag.index.legs import Legs
from rag.index.manifest import Manifest, chunks_digest, version_id
from rag.index.sparse import SparseLeg, build_sparse
from rag.models.embedder import Embedder
from rag.models.encoder import reference
from rag.retrieval.fusion import DEFAULT as DEFAULT_FUSION
from rag.types import Chunk, Int64, RowMask


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How a collection is indexed; as the options of a build, see indexer/build.py."""

    analyzer: str = "auto"
    dense: Mapping[str, Any] = field(default_factory=dict)
    sparse: Mapping[str, Any] = field(default_factory=dict)
    fusion: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_FUSION))


class Collection(Legs):
    """An indexed collection; an `Index` with `Evidence` (see rag/index/protocol.py), no filters."""

    def __init__(
        self,
        manifest: Manifest,
        chunks: Sequence[Chunk],
        dense: DenseLeg,
        sparse: SparseLeg,
        analyzer: Analyzer,
    ) -> None:
        super().__init__(manifest, dense, sparse, analyzer)
        self._chunks = chunks

    def select(self, where: Mapping[str, Any]) -> RowMask:
        raise InvalidFilter("a collection under evaluation has no filters; leave the filter out")

    def chunks(self, rows: Int64) -> list[Chunk]:
        wanted = [int(row) for row in rows]
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self._chunks):
            raise IndexError(f"rows must lie in 0..{len(self._chunks) - 1}")
        return [self._chunks[row] for row in wanted]


def build_collection(
    dataset: Dataset,
    folder: Path,
    embedder: Embedder,
    options: IndexOptions,
    *,
    vectors: VectorCache,
    advance: Advance,
) -> Collection:
    """Indexes the documents of `dataset` below the empty `folder`, which must outlive the index.

    Uses the writers and the reference formats of a real build. Raises EvaluationError for a
    malformed or empty corpus.
    """
    chunks = whole_chunks(dataset)
    ids, passages = [chunk_id for chunk_id, _ in chunks], [chunk for _, chunk in chunks]
    texts = [chunk.indexed_text for chunk in passages]
    dense = build_dense(folder, vectors.embed(embedder, "passage", texts, advance), **options.dense)
    analyzer = make_analyzer(options.analyzer)
    terms = _terms(analyzer, texts, advance)
    sparse = build_sparse(folder, terms, weight=analyzer.weight, **options.sparse)
    references: dict[str, Any] = {
        "encoder": reference(embedder.config),
        "analyzer": analyzer.reference(),
        "chunker": {"kind": "whole"},
        "dense": dense,
        "sparse": sparse,
        "fusion": dict(options.fusion),
    }
    digest = chunks_digest(ids)
    manifest = Manifest(
        version=version_id(digest, format=1, **references),
        chunks_digest=digest,
        counts={"documents": len(ids), "chunks": len(ids), "skipped": 0},
        files={},
        program=f"rag-containers {__version__}",
        **references,
    )
    legs = DenseLeg.open(folder, dense), SparseLeg.open(folder, sparse)
    return Collection(manifest, passages, *legs, analyzer)


def whole_chunks(dataset: Dataset) -> list[tuple[str, Chunk]]:
    """Each document as one passage, with its chunk id, ascending; EvaluationError if none."""
    chunks = sorted(map(_chunk, dataset.corpus()), key=lambda pair: pair[0])
    if not chunks:
        raise EvaluationError(f"{dataset.corpus_path} holds no document; there is nothing to index")
    return chunks


def _chunk(line: CorpusLine) -> tuple[str, Chunk]:
    """The document as one passage, with its chunk id; its title is the context of its text."""
    title, text = (unicodedata.normalize("NFC", part) for part in (line.title, line.text))
    chunk = Chunk(
        doc_id=line.doc_id, uri=line.doc_id, title=title, text=text, start=0, end=len(text),
        context=title,
    )  # fmt: skip
    return chunk.chunk_id, chunk


def _terms(analyzer: Analyzer, texts: Sequence[str], advance: Advance) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), SLICE):
        yield from analyzer.batch(texts[start : start + SLICE])
        advance("analyse", min(SLICE, len(texts) - start), len(texts))
