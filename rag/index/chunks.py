"""Rows to text: the only place that turns a row into a `Chunk`, and filters into row masks."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from rag.errors import BundleCorrupt, BundleMissing, BundleMixed
from rag.index import filters
from rag.index.arrow_columns import Reader, reader
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
RECORDS_KEPT = 4096
"""Documents of recent passages, whose records need not be read again."""


class ChunkStore:
    """The text and metadata of one bundle, memory-mapped; safe to read from several threads."""

    def __init__(self, documents: _Rows, chunks: _Rows) -> None:
        self._documents = documents
        self._chunks = chunks
        self._columns = _FilterColumns(documents, chunks)
        self._masks = _MaskCache(MASK_CACHE_BYTES)
        self._records: dict[int, DocumentRecord] = {}

    @classmethod
    def open(cls, folder: Path) -> ChunkStore:
        """Opens what `write_chunks` wrote. Raises BundleMissing or BundleCorrupt naming the file,
        and BundleMixed if the two files do not belong together.
        """
        documents = _Rows(folder / DOCUMENTS, DOCUMENT_SCHEMA)
        store = cls(documents, _Rows(folder / CHUNKS, CHUNK_SCHEMA))
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
        found = self._chunks.rows(self._checked(rows))
        records = self._known_records([values[1] for values in found])
        return list(map(_chunk, found, records))

    def _known_records(self, docs: Sequence[int]) -> list[DocumentRecord]:
        """The records of documents by their rows; those of recent ones are kept."""
        known = self._records
        if len(known) > RECORDS_KEPT:
            known = self._records = {}
        unknown = [doc for doc in dict.fromkeys(docs) if doc not in known]
        known.update(zip(unknown, map(_record, self._documents.rows(unknown)), strict=True))
        return [known[doc] for doc in docs]

    def chunk_ids(self, rows: Int64) -> list[str]:
        """The ids of `rows`, in that order; IndexError as in `chunks`."""
        return [self._columns.ids[row] for row in self._checked(rows)]

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
        return self._record(row) if row < len(ids) and ids[row] == doc_id else None

    def records(self) -> Iterator[DocumentRecord]:
        """Every document, by ascending doc id."""
        return map(self._record, range(self.documents))

    def record_at(self, row: int) -> DocumentRecord:
        """The document of that row; documents ascend by doc id."""
        return self._record(row)

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

    def _checked(self, rows: Int64) -> list[int]:
        values = np.asarray(rows)
        if values.size and not (values.min() >= 0 and values.max() < self.rows):
            raise IndexError(
                f"rows must lie in 0..{self.rows - 1}, got {values.min()}..{values.max()}"
            )
        found: list[int] = values.ravel().tolist()
        return found

    def _record(self, row: int) -> DocumentRecord:
        return _record(self._documents.rows([row])[0])


def _record(values: Sequence[Any]) -> DocumentRecord:
    """`values` are those of DOCUMENT_SCHEMA, in its order."""
    doc_id, uri, title, lang, kind, metadata, sha256, size = values
    read: Metadata = orjson.loads(metadata)
    return DocumentRecord(doc_id, uri, title, lang, kind, read, sha256, size)


def _chunk(values: Sequence[Any], record: DocumentRecord) -> Chunk:
    """`values` are those of CHUNK_SCHEMA, in its order."""
    chunk_id, _, page, start, end, headings, context, text = values
    chunk = Chunk(
        record.doc_id, record.uri, record.title, text, start, end, page, headings, context,
        record.lang, record.format, record.metadata,
    )  # fmt: skip
    object.__setattr__(chunk, "stored_id", chunk_id.hex())
    return chunk


class _Rows:
    """An Arrow IPC file as rows; `names` are the columns that `rows` returns."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.names = schema.names
        if not path.is_file():
            raise BundleMissing(f"{path} is not there; copy or build the bundle again")
        try:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
            self.batches = [file.get_batch(i) for i in range(file.num_record_batches)]
            for batch in self.batches:
                batch.validate()
        except (pa.ArrowInvalid, OSError) as error:
            raise BundleCorrupt(
                f"{path} cannot be read ({error}); build the bundle again"
            ) from None
        self.schema: pa.Schema = file.schema
        if self.schema.names[: len(schema)] != schema.names or any(
            self.schema.field(f.name).type != f.type for f in schema
        ):
            raise BundleCorrupt(f"{path} has other columns than it should; build the bundle again")
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in self.batches)]
        self._readers: list[dict[str, Reader]] = [{} for _ in self.batches]

    @property
    def count(self) -> int:
        return self._starts[-1]

    def value(self, name: str, row: int) -> Any:
        number, offset = self._locate(row)
        try:
            return self._readers_of(number)[name](offset)
        except UnicodeDecodeError as error:
            raise self._broken(error) from None

    def rows(self, rows: Iterable[int]) -> list[list[Any]]:
        """The values of `names` of each of `rows`, in their order."""
        found = []
        try:
            for row in rows:
                number, offset = self._locate(row)
                readers = self._readers[number] or self._readers_of(number)
                found.append([read(offset) for read in readers.values()])
        except UnicodeDecodeError as error:
            raise self._broken(error) from None
        return found

    def slices(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        start, stop, _ = slice(start, stop).indices(self.count)
        while start < stop:
            number, offset = self._locate(start)
            part = self.batches[number].slice(offset, stop - start)
            yield from zip(*(part.column(name).to_pylist() for name in names), strict=True)
            start += part.num_rows

    def _locate(self, row: int) -> tuple[int, int]:
        """The batch that holds `row`, and where in it."""
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]

    def _readers_of(self, number: int) -> dict[str, Reader]:
        """One for each of `names`, made when the batch is first read."""
        readers = self._readers[number]
        if not readers:
            batch = self.batches[number]
            readers = {name: reader(batch.column(name)) for name in self.names}
            self._readers[number] = readers
        return readers

    def _broken(self, error: UnicodeDecodeError) -> BundleCorrupt:
        return BundleCorrupt(f"{self.path} holds broken text ({error}); build again")


class _Column(Sequence[Any]):
    """One column as a sequence that reads only what is asked for: enough for bisection."""

    def __init__(self, rows: _Rows, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return self._rows.count

    def __getitem__(self, row: Any) -> Any:
        value = self._rows.value(self._name, row)
        return value.hex() if isinstance(value, bytes) else value


class _FilterColumns:
    """What filters are evaluated against (`rag.index.filter_masks.Columns`)."""

    def __init__(self, documents: _Rows, chunks: _Rows) -> None:
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
