"""The two Arrow files that hold text and metadata, and how they are written.

`documents.arrow` has one row per document, sorted by doc id; `chunks.arrow` one per chunk, sorted
by chunk id: row i is chunk row i. Both are Arrow IPC files, uncompressed (so that they can be
memory-mapped), in batches of fixed size; equal input gives equal bytes.

Beside the metadata as JSON, each metadata key has one column per type that its values have, named
`m:KIND:KEY` with KIND s, i, f or b (string, int64, double, bool), or ls, li, lf, lb for the
elements of lists: that keeps mixed types of one key exact and comparable in one vectorised call.
An empty list is an empty `ls`.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa

from rag.errors import BuildError
from rag.types import Chunk, Metadata

T = TypeVar("T")
DOCUMENTS = "documents.arrow"
CHUNKS = "chunks.arrow"
DOCUMENTS_PER_BATCH = 8192
CHUNKS_PER_BATCH = 2048
MAX_FIELDS = 2000
"""Metadata columns in one bundle: every one costs room in every row."""

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)
CHUNK_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.binary(16), nullable=False),
        pa.field("doc", pa.int32(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("headings", pa.list_(pa.string()), nullable=False),
        pa.field("context", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)
FIELD_TYPES = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_()}
_KINDS: dict[type, str] = {str: "s", int: "i", float: "f", bool: "b"}


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """What a bundle keeps of a document beside its chunks: `sha256` (64 hex digits) and `size`
    (bytes) are those of the source file; the rest as in `Document`.
    """

    doc_id: str
    uri: str
    title: str
    lang: str
    format: str
    metadata: Metadata = field(default_factory=dict)
    sha256: str = ""
    size: int = 0


class ChunkCounts(NamedTuple):
    """How many rows were written."""

    documents: int
    chunks: int


def write_chunks(
    folder: Path, documents: Iterable[DocumentRecord], chunks: Iterable[tuple[str, Chunk]]
) -> ChunkCounts:
    """Writes `documents.arrow` and `chunks.arrow` into `folder`, one batch in memory at a time.

    `documents` ascend by doc id, `chunks` are (chunk id, chunk) and ascend by chunk id; what a
    chunk says of its document is taken from the document's record. Raises BuildError for ids that
    are unsorted, repeated or malformed, for a chunk of an unknown document, and for metadata that
    cannot be stored (see `metadata_problem`).
    """
    rows: dict[str, int] = {}

    def numbered() -> Iterator[DocumentRecord]:
        for record in documents:
            rows[record.doc_id] = len(rows)
            yield record

    count = write_documents(folder, numbered())
    return ChunkCounts(count, write_chunk_columns(folder, _columns(chunks, rows)))


def write_documents(folder: Path, documents: Iterable[DocumentRecord]) -> int:
    """Writes `documents.arrow` alone, as `write_chunks` does; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as spool:
        count, fields = _spool_documents(documents, spool)
        _write_documents(folder / DOCUMENTS, spool, fields)
    return count


def write_chunk_columns(folder: Path, batches: Iterable[Mapping[str, list[Any]]]) -> int:
    """Writes `chunks.arrow` alone; returns how many rows it has.

    Each batch has a list for each field of CHUNK_SCHEMA and, but for the last, CHUNKS_PER_BATCH
    rows. Rows must ascend by chunk id and name rows of `documents.arrow`: nothing checks it here.
    """
    path = folder / CHUNKS
    count = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, CHUNK_SCHEMA) as writer:
        for columns in batches:
            writer.write_batch(_batch(columns, CHUNK_SCHEMA, path))
            count += len(columns["chunk_id"])
    return count


def metadata_problem(metadata: Mapping[str, Any]) -> str | None:
    """Why `metadata` cannot be stored, or None: keys must be strings, values strings, finite
    numbers (integers of 64 bits), booleans, or sequences of those; all of it valid Unicode.
    """
    for key, value in metadata.items():
        if not isinstance(key, str) or not _is_unicode(key):
            return f"metadata key {key!r} is not a string of valid Unicode"
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if type(item) not in _KINDS:
                return (
                    f"metadata '{key}' holds {type(item).__name__}, which has no place in a filter"
                )
            if isinstance(item, float) and not math.isfinite(item):
                return f"metadata '{key}' holds {item}, which is not a finite number"
            if type(item) is int and not -(2**63) <= item < 2**63:
                return f"metadata '{key}' holds an integer of more than 64 bits"
            if isinstance(item, str) and not _is_unicode(item):
                return f"metadata '{key}' is not valid Unicode"
    return None


def field_name(kind: str, key: str) -> str:
    """The column of metadata `key` for values of `kind` ('s', 'li', …)."""
    return f"m:{kind}:{key}"


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _kinds_of(value: Any) -> set[str]:
    if isinstance(value, (list, tuple)):
        return {"l" + _KINDS[type(item)] for item in value} or {"ls"}
    return {_KINDS[type(value)]}


def _pick(value: Any, kind: str) -> Any:
    """The part of a metadata value that belongs into the column of `kind`, or None."""
    if value is None or kind not in _kinds_of(value):
        return None
    if not kind.startswith("l"):
        return value
    return [item for item in value if _KINDS[type(item)] == kind[1:]]


def _spool_documents(
    documents: Iterable[DocumentRecord], spool: IO[str]
) -> tuple[int, list[tuple[str, str]]]:
    """Checks the records and writes them as JSON lines; returns how many there are, and every
    (key, kind) that occurs: the schema must be known before the first row is written.
    """
    count = 0
    fields: set[tuple[str, str]] = set()
    last = None
    for record in documents:
        if last is not None and record.doc_id <= last:
            raise BuildError(
                f"document '{record.doc_id}' follows '{last}': documents must ascend, each once"
            )
        problem = metadata_problem(record.metadata)
        if problem is not None:
            raise BuildError(f"document '{record.doc_id}': {problem}; leave it out or turn it text")
        for key, value in record.metadata.items():
            fields.update((key, kind) for kind in _kinds_of(value))
        last = record.doc_id
        count += 1
        values = {name: getattr(record, name) for name in DocumentRecord.__slots__}
        spool.write(json.dumps(values, default=dict) + "\n")
    if len(fields) > MAX_FIELDS:
        raise BuildError(
            f"the documents have {len(fields)} kinds of metadata, a bundle holds {MAX_FIELDS};"
            " drop keys that no filter needs"
        )
    spool.seek(0)
    return count, sorted(fields)


def _write_documents(path: Path, spool: IO[str], fields: list[tuple[str, str]]) -> None:
    schema = DOCUMENT_SCHEMA
    for key, kind in fields:
        value = FIELD_TYPES[kind[-1]]
        value = pa.list_(value) if kind.startswith("l") else value
        schema = schema.append(pa.field(field_name(kind, key), value))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for lines in _batches(spool, DOCUMENTS_PER_BATCH):
            records = [json.loads(line) for line in lines]
            columns = {name: [r[name] for r in records] for name in DOCUMENT_SCHEMA.names}
            for key, kind in fields:
                values = (r["metadata"].get(key) for r in records)
                columns[field_name(kind, key)] = [_pick(value, kind) for value in values]
            columns["metadata"] = [
                json.dumps(m, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
                for m in columns["metadata"]
            ]
            writer.write_batch(_batch(columns, schema, path))


def _columns(
    chunks: Iterable[tuple[str, Chunk]], rows: Mapping[str, int]
) -> Iterator[dict[str, list[Any]]]:
    for batch in _batches(_ascending(chunks), CHUNKS_PER_BATCH):
        columns: dict[str, list[Any]] = {
            "chunk_id": [_id_bytes(chunk_id) for chunk_id, _ in batch],
            "doc": [_document_row(chunk_id, chunk, rows) for chunk_id, chunk in batch],
            "headings": [list(chunk.headings) for _, chunk in batch],
        }
        for name in ("page", "start", "end", "context", "text"):
            columns[name] = [getattr(chunk, name) for _, chunk in batch]
        yield columns


def _ascending(chunks: Iterable[tuple[str, Chunk]]) -> Iterator[tuple[str, Chunk]]:
    last = ""
    for chunk_id, chunk in chunks:
        if chunk_id <= last:
            raise BuildError(
                f"chunk '{chunk_id}' follows '{last}': chunks must ascend by id, each once"
            )
        last = chunk_id
        yield chunk_id, chunk


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _document_row(chunk_id: str, chunk: Chunk, rows: Mapping[str, int]) -> int:
    row = rows.get(chunk.doc_id)
    if row is None:
        raise BuildError(f"chunk {chunk_id} belongs to '{chunk.doc_id}', which is no document here")
    return row


def _id_bytes(chunk_id: str) -> bytes:
    try:
        value = bytes.fromhex(chunk_id)
    except ValueError:
        value = b""
    if len(value) != 16 or value.hex() != chunk_id:
        raise BuildError(f"chunk id '{chunk_id}' is not 32 lower-case hex digits")
    return value


def _batch(columns: Mapping[str, list[Any]], schema: pa.Schema, path: Path) -> pa.RecordBatch:
    try:
        arrays = [pa.array(columns[f.name], type=f.type) for f in schema]
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError) as error:
        raise BuildError(f"{path.name} cannot hold these values: {error}") from None
    return pa.record_batch(arrays, schema=schema)
