"""Rows to text: the only place that turns a row into a `Chunk`, and filters into row masks."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from rag.errors import BundleMixed
from rag.index import filters
from rag.index.arrow_rows import ArrowRows
from rag.index.chunk_files import (
    CHUNK_SCHEMA,
    CHUNKS,
    DOCUMENT_SCHEMA,
    DOCUMENTS,
    ChunkCounts,
    DocumentRecord,
    metadata_problem,
    write_chunks,
)
from rag.index.filter_masks import evaluate
from rag.types import Chunk, Int64, Metadata, RowMask

__all__ = ["ChunkCounts", "ChunkStore", "DocumentRecord", "metadata_problem", "write_chunks"]

MASK_CACHE_BYTES = 64 * 2**20
ID_BYTES = 16
DOCUMENTS_KEPT = 4096
"""Documents of recent passages, which need not be read again."""
DOCUMENTS_AT_ONCE = 1024
"""That are read together by who goes over all of them."""
_OF_CHUNK = ("doc", "chunk_id", "page", "start", "end", "headings", "context", "text")
_OF_DOCUMENT = ("doc_id", "uri", "title", "lang", "format", "metadata")
_Document = tuple[str, str, str, str, str, Metadata]
"""The values of _OF_DOCUMENT, the metadata read."""


class ChunkStore:
    """The text and metadata of one bundle, memory-mapped; safe to read from several threads."""

    def __init__(self, documents: ArrowRows, chunks: ArrowRows) -> None:
        self._documents = documents
        self._chunks = chunks
        self._columns = _FilterColumns(documents, chunks)
        self._masks = _MaskCache(MASK_CACHE_BYTES)
        self._recent: dict[int, _Document] = {}

    @classmethod
    def open(cls, folder: Path) -> ChunkStore:
        """Opens what `write_chunks` wrote. Raises BundleMissing or BundleCorrupt naming the file,
        and BundleMixed if the two files do not belong together.
        """
        documents = ArrowRows(folder / DOCUMENTS, DOCUMENT_SCHEMA)
        store = cls(documents, ArrowRows(folder / CHUNKS, CHUNK_SCHEMA))
        doc = store._columns.doc_of_row
        if len(doc) and not 0 <= int(doc.min()) <= int(doc.max()) < documents.count:
            raise BundleMixed(f"{folder / CHUNKS} names documents that {DOCUMENTS} does not hold")
        return store

    @property
    def rows(self) -> int:
        """How many chunks there are."""
        return self._chunks.count

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return self._documents.count

    def chunks(self, rows: Int64) -> list[Chunk]:
        """The chunks of `rows` (int64, (n,)), in that order, repeats included.

        Raises IndexError for a row outside 0..rows-1, -1 included: padding is no chunk.
        """
        docs, *own = self._chunks.columns(_OF_CHUNK, np.ravel(rows))
        found = []
        for doc, values in zip(self._known_documents(docs), zip(*own, strict=True), strict=True):
            doc_id, uri, title, lang, kind, metadata = doc
            chunk_id, page, start, end, headings, context, text = values
            chunk = Chunk(
                doc_id, uri, title, text, start, end, page, headings, context, lang, kind, metadata
            )
            object.__setattr__(chunk, "stored_id", chunk_id.hex())
            found.append(chunk)
        return found

    def _known_documents(self, rows: Sequence[int]) -> list[_Document]:
        """What chunks say of their documents, by rows; those of recent ones are kept."""
        known = self._recent
        if len(known) > DOCUMENTS_KEPT:
            known = self._recent = {}
        unknown = [row for row in dict.fromkeys(rows) if row not in known]
        *texts, metadata = self._documents.columns(_OF_DOCUMENT, unknown)
        known.update(
            zip(unknown, zip(*texts, map(orjson.loads, metadata), strict=True), strict=True)
        )
        return [known[row] for row in rows]

    def chunk_ids(self, rows: Int64) -> list[str]:
        """The ids of `rows`, in that order; IndexError as in `chunks`."""
        (ids,) = self._chunks.columns(["chunk_id"], np.ravel(rows))
        return [chunk_id.hex() for chunk_id in ids]

    def packed_ids(self) -> Iterator[bytes]:
        """Every chunk id in row order, 16 bytes each, in blocks."""
        for batch in self._chunks.batches:
            column = batch.column("chunk_id")
            start = column.offset * ID_BYTES
            stop = start + len(column) * ID_BYTES
            yield bytes(memoryview(column.buffers()[1])[start:stop])

    def indexed_texts(self, start: int, stop: int) -> list[str]:
        """`Chunk.indexed_text` of rows start..stop-1, cut at the end as slices are."""
        texts = []
        for context, text in self._chunks.slices(("context", "text"), start, stop):
            texts.append(f"{context}\n{text}" if context else text)
        return texts

    def record(self, doc_id: str) -> DocumentRecord | None:
        """The document of that id, or None."""
        ids = _Column(self._documents, "doc_id")
        row = bisect_left(ids, doc_id)
        return self.record_at(row) if row < len(ids) and ids[row] == doc_id else None

    def records(self) -> Iterator[DocumentRecord]:
        """Every document, by ascending doc id."""
        for start in range(0, self.documents, DOCUMENTS_AT_ONCE):
            stop = min(start + DOCUMENTS_AT_ONCE, self.documents)
            yield from self._records(range(start, stop))

    def record_at(self, row: int) -> DocumentRecord:
        """The document of that row; documents ascend by doc id."""
        return self._records([row])[0]

    def document_ids(self) -> list[str]:
        """Every document's id, ascending."""
        ids: list[str] = self._columns.documents.column("doc_id").to_pylist()
        return ids

    def document_rows(self) -> NDArray[np.int32]:
        """int32 (rows,): the row of each chunk's document."""
        return self._columns.doc_of_row

    def select(self, where: Mapping[str, Any]) -> RowMask:
        """The rows where the filter holds (see rag/index/filters.py): bool (rows,), read-only.

        Masks of recent filters are kept. Raises InvalidFilter.
        """
        parsed = filters.parse(where)
        mask = self._masks.get(parsed.key)
        if mask is None:
            mask = evaluate(parsed.root, self._columns)
            self._masks.put(parsed.key, mask)
        return mask

    def _records(self, rows: Sequence[int]) -> list[DocumentRecord]:
        *texts, metadata, sha256, size = self._documents.columns(DOCUMENT_SCHEMA.names, rows)
        return list(map(DocumentRecord, *texts, map(orjson.loads, metadata), sha256, size))


class _Column(Sequence[Any]):
    """One column as a sequence that reads only what is asked for: enough for bisection."""

    def __init__(self, rows: ArrowRows, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return self._rows.count

    def __getitem__(self, row: Any) -> Any:
        value = self._rows.value(self._name, row)
        return value.hex() if isinstance(value, bytes) else value


class _FilterColumns:
    """What filters are evaluated against (`rag.index.filter_masks.Columns`)."""

    def __init__(self, documents: ArrowRows, chunks: ArrowRows) -> None:
        self.documents = pa.Table.from_batches(documents.batches, schema=documents.schema)
        table = pa.Table.from_batches(chunks.batches, schema=chunks.schema)
        self.pages: pa.ChunkedArray = table.column("page")
        self.doc_of_row: NDArray[np.int32] = table.column("doc").to_numpy()
        self.ids: Sequence[str] = _Column(chunks, "chunk_id")


class _MaskCache:
    """The masks of the most recently used filters, up to so many bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._masks: OrderedDict[bytes, RowMask] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> RowMask | None:
        with self._lock:
            mask = self._masks.get(key)
            if mask is not None:
                self._masks.move_to_end(key)
            return mask

    def put(self, key: bytes, mask: RowMask) -> None:
        mask.setflags(write=False)
        with self._lock:
            replaced = self._masks.pop(key, None)
            self._used += mask.nbytes - (replaced.nbytes if replaced is not None else 0)
            self._masks[key] = mask
            while self._used > self._capacity:
                self._used -= self._masks.popitem(last=False)[1].nbytes
