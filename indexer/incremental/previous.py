"""The version before: its documents, chunks and vectors, for a build that goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.incremental.state import COUNTS, OBJECTS, ObjectState, read_state
from indexer.pipeline.records import (
    ID_BYTES,
    ChunkLine,
    DocumentEntry,
    Failure,
    Mark,
    ParsedBatch,
    chunk_line,
    empty_batch,
    encode,
)
from indexer.pipeline.stages import text_digests
from indexer.pipeline.vectors import Digests
from rag.errors import BundleMissing
from rag.index.bundle import ENCODER, Bundle
from rag.index.fetching import fetch, remote_manifest
from rag.index.manifest import Manifest
from rag.index.root import Root
from rag.index.sparse import FOLDER as SPARSE
from rag.index.vocabulary import BLOB, OFFSETS, open_array
from rag.storage import is_remote, open_store
from rag.types import Float32, Int64, RowMask

_AT_ONCE = 4096


class Previous:
    """The bundle that `uri` (a bundle or a root) names; of a remote one, what is asked for is
    copied below `cache`, and only that.
    """

    def __init__(self, uri: str, manifest: Manifest, cache: Path) -> None:
        self.manifest = manifest
        self._uri = uri
        self._cache = cache

    @classmethod
    def find(cls, uri: str, cache: Path) -> Previous | None:
        """The version in service at `uri`, or None where nothing was published yet, or by a
        program that kept no state. Raises BundleError, StorageError.
        """
        root = Root(uri)
        pointer = root.current()
        where = uri if pointer is None else root.version_uri(pointer.version)
        try:
            manifest = remote_manifest(open_store(where))
        except BundleMissing:
            if pointer is not None:
                raise
            return None
        return cls(where, manifest, cache) if OBJECTS in manifest.files else None

    @property
    def about(self) -> dict[str, Any]:
        """What the build that made it said of itself."""
        return dict(self.manifest.measured.get("build", {}))

    def objects(self) -> Iterator[tuple[str, list[ObjectState]]]:
        """Every object with its documents, ascending by key."""
        path = self._cache / f"{self.manifest.version}-objects.arrow"
        if not is_remote(self._uri):
            path = Path(self._uri, OBJECTS)
        elif not path.is_file():
            self._cache.mkdir(parents=True, exist_ok=True)
            open_store(self._uri).download(OBJECTS, path)
        return read_state(path)

    def failures(self) -> Iterator[Failure]:
        """The documents that are not in it."""
        for _, states in self.objects():
            yield from (state.failure() for state in states if state.reason is not None)

    @cached_property
    def folder(self) -> Path:
        """Where its files lie, all of them."""
        return fetch(self._uri, self._cache) if is_remote(self._uri) else Path(self._uri)

    @property
    def encoder_folder(self) -> Path:
        return self.folder / ENCODER

    @cached_property
    def _bundle(self) -> Bundle:
        # What is taken over is proven first: a flipped bit would live on in every later version.
        return Bundle.open(self.folder, verify=True)

    @cached_property
    def _document_rows(self) -> dict[str, int]:
        return {doc_id: row for row, doc_id in enumerate(self._bundle.store.document_ids())}

    @cached_property
    def _chunk_rows(self) -> tuple[Int64, Int64]:
        """Every chunk's row by document, and where each document's begin."""
        doc = self._bundle.store.document_rows()
        order = np.argsort(doc, kind="stable").astype(np.int64)
        starts = np.searchsorted(doc[order], np.arange(self._bundle.store.documents + 1))
        return order, starts.astype(np.int64)

    def payload(self, states: Sequence[tuple[ObjectState, Mark]]) -> bytes:
        """The documents of `states` as a batch, encoded, as parsing them again would give them;
        each with the mark that its object has now.
        """
        failures = [s.failure()._replace(mark=mark) for s, mark in states if s.reason is not None]
        kept = [(state, mark) for state, mark in states if state.reason is None]
        if not kept:
            return encode(empty_batch(failures))
        order, starts = self._chunk_rows
        entries, parts = [], []
        for state, mark in kept:
            row = self._document_rows[state.doc_id]
            rows = order[starts[row] : starts[row + 1]]
            record = self._bundle.store.record_at(row)
            entries.append(DocumentEntry(mark, state.content, state.hangul, len(rows), record))
            parts.append(rows)
        return encode(self._batch(entries, failures, np.concatenate(parts)))

    def _batch(self, entries: list[Any], failures: list[Any], rows: Int64) -> ParsedBatch:
        store = self._bundle.store
        chunks = store.chunks(rows)
        texts = [chunk.indexed_text for chunk in chunks]
        lines = [
            chunk_line(ChunkLine(c.text, c.start, c.end, c.page, list(c.headings), c.context))
            for c in chunks
        ]
        ids = b"".join(bytes.fromhex(chunk_id) for chunk_id in store.chunk_ids(rows))
        found = self._bundle.passage_terms(rows)
        spans = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
        stored = np.concatenate([found.terms[start:end] for start, end in spans])
        counts = np.concatenate([self._counts[start:end] for start, end in spans])
        used, terms = np.unique(stored, return_inverse=True)
        return ParsedBatch(
            documents=entries,
            failures=failures,
            vocabulary=self._terms(used),
            ids=np.frombuffer(ids, dtype=np.uint8).reshape(-1, ID_BYTES),
            digests=text_digests(texts),
            tokens=np.array([len(text) // 4 for text in texts], dtype=np.int32),
            sizes=(found.ends - found.starts).astype(np.int32),
            terms=terms.astype(np.int32),
            counts=counts.astype(np.int32),
            ends=np.cumsum([len(line) for line in lines], dtype=np.int64),
            lines=b"".join(lines),
        )

    @cached_property
    def _counts(self) -> NDArray[Any]:
        counts: NDArray[Any] = np.load(self.folder / COUNTS, mmap_mode="r", allow_pickle=False)
        return counts

    def _terms(self, ids: NDArray[np.int32]) -> list[str]:
        blob = open_array(self.folder / SPARSE / BLOB, np.uint8)
        offsets = open_array(self.folder / SPARSE / OFFSETS, np.int64)
        spans = zip(offsets[ids].tolist(), offsets[ids + 1].tolist(), strict=True)
        return [blob[a:b].tobytes().decode("utf-8", "surrogatepass") for a, b in spans]

    def has_vectors(self, runs_as: str, encoder: dict[str, Any]) -> bool:
        """Whether its dense leg holds, as they were, vectors that are computed alike."""
        return (
            self._bundle.dense.keeps_float32
            and self.about.get("runs_as") == runs_as
            and self.manifest.encoder == encoder
        )

    def find_vectors(self, digests: Digests) -> tuple[RowMask, Float32]:
        """Which of the texts it has, and the vectors of those."""
        keys, rows = self._digest_rows
        wanted = _keys(digests)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        there = keys[place] == wanted
        return there, self._bundle.vectors(rows[place[there]])

    @cached_property
    def _digest_rows(self) -> tuple[NDArray[Any], Int64]:
        store = self._bundle.store
        parts = [
            text_digests(store.indexed_texts(start, start + _AT_ONCE))
            for start in range(0, store.rows, _AT_ONCE)
        ]
        keys = _keys(np.concatenate(parts))
        order = np.argsort(keys, kind="stable").astype(np.int64)
        return keys[order], order


def _keys(digests: Digests) -> NDArray[Any]:
    """The digests as values that can be sorted."""
    return np.ascontiguousarray(digests).view(f"S{ID_BYTES}").ravel()
