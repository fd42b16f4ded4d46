"""What travels between the stages of a build: documents in batches, and what became of them.

A parsed batch is one run of bytes, as it is sent between processes and as it lies in the spool: a
JSON header, then arrays, and last one JSON line for each chunk. Nothing in it depends on the
batches before it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from rag.index.chunks import DocumentRecord
from rag.types import Metadata

ID_BYTES = 16
_HEAD = struct.Struct("<IIII")  # header bytes, chunks, postings, line bytes


class Mark(NamedTuple):
    """Which state of an object a document was made from: its key in the source, its ETag (or what
    stands for it), and those of its sidecar ('' for none).
    """

    key: str
    etag: str
    sidecar_etag: str = ""


class RawDocument(NamedTuple):
    """One document as it was read. `format` is '' for a file, which tells its format itself, and
    the format's name for a row of a text corpus, whose `data` is its text, with `title` and
    `metadata` beside it. `sidecar` holds the sidecar's bytes, or None.
    """

    mark: Mark
    doc_id: str
    uri: str
    data: bytes
    sidecar: bytes | None = None
    format: str = ""
    title: str = ""
    metadata: Metadata | None = None


class DocumentEntry(NamedTuple):
    """A document that was cut into `chunks` chunks; `content` is the SHA-256 (64 hex digits) of all
    that it was made from, and `hangul` whether Korean script is in it.
    """

    mark: Mark
    content: str
    hangul: bool
    chunks: int
    record: DocumentRecord


class Failure(NamedTuple):
    """A document that cannot be indexed, and why. `lasting` says that reading the same bytes again
    would end the same way.
    """

    mark: Mark
    content: str
    doc_id: str
    reason: str
    lasting: bool


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """A batch after parsing, chunking, counting tokens and analysing.

    Chunks follow their documents' order. `ids` and `digests` (of the indexed text) are uint8
    (n, 16), `tokens` int32 (n,) the encoder's tokens. Chunk i has the `sizes[i]` (int32) postings
    after those of the chunks before it: `terms` int32 into `vocabulary`, `counts` int32. `lines`
    holds each chunk as JSON, ending at `ends` int64 (n,).
    """

    documents: Sequence[DocumentEntry]
    failures: Sequence[Failure]
    vocabulary: Sequence[str]
    ids: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    tokens: NDArray[np.int32]
    sizes: NDArray[np.int32]
    terms: NDArray[np.int32]
    counts: NDArray[np.int32]
    ends: NDArray[np.int64]
    lines: bytes | memoryview

    def texts(self, places: NDArray[np.int64]) -> list[str]:
        """The indexed text of the chunks at these places."""
        ends = self.ends[places]
        starts = np.where(places > 0, self.ends[places - 1], 0)
        return [
            indexed_text(self.lines[start:end])
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]


class ChunkLine(NamedTuple):
    """A chunk without what it shares with its document."""

    text: str
    start: int
    end: int
    page: int | None
    headings: list[str]
    context: str


def empty_batch(failures: Sequence[Failure]) -> ParsedBatch:
    """A batch without a document."""
    none, ids = np.zeros(0, dtype=np.int32), np.zeros((0, ID_BYTES), dtype=np.uint8)
    ends = np.zeros(0, dtype=np.int64)
    return ParsedBatch([], failures, [], ids, ids, none, none, none, none, ends, b"")


def chunk_line(line: ChunkLine) -> bytes:
    return orjson.dumps(tuple(line))


def read_line(data: bytes | memoryview) -> ChunkLine:
    return ChunkLine(*orjson.loads(data))


def entry_line(entry: DocumentEntry) -> bytes:
    return orjson.dumps(_values(entry), default=list)


def read_entry(data: bytes) -> DocumentEntry:
    return _entry(orjson.loads(data))


def indexed_text(data: bytes | memoryview) -> str:
    """`Chunk.indexed_text` of a chunk's line."""
    line = read_line(data)
    return f"{line.context}\n{line.text}" if line.context else line.text


def encode(batch: ParsedBatch) -> bytes:
    """The batch as bytes; equal batches give equal bytes."""
    header = orjson.dumps(
        {
            "documents": [_values(entry) for entry in batch.documents],
            "failures": batch.failures,
            "vocabulary": batch.vocabulary,
        },
        default=list,
    )
    header += b" " * (-len(header) % 8)  # keeps the arrays aligned
    sizes = (len(header), len(batch.tokens), len(batch.terms), len(batch.lines))
    arrays = (getattr(batch, name).tobytes() for name, _, _ in _ARRAYS)
    return b"".join([_HEAD.pack(*sizes), header, *arrays, batch.lines])


def decode(data: bytes | memoryview) -> ParsedBatch:
    """What `encode` was given; the arrays are views of `data`."""
    view = memoryview(data)
    header_bytes, chunks, postings, line_bytes = _HEAD.unpack_from(view)
    at = _HEAD.size + header_bytes
    header = orjson.loads(view[_HEAD.size : at])
    arrays: dict[str, Any] = {}
    for name, dtype, width in _ARRAYS:
        count = postings if name in ("terms", "counts") else chunks * width
        values = np.frombuffer(view, dtype=dtype, count=count, offset=at)
        arrays[name] = values.reshape(-1, width) if width > 1 else values
        at += values.nbytes
    return ParsedBatch(
        documents=[_entry(values) for values in header["documents"]],
        failures=[Failure(Mark(*mark), *rest) for mark, *rest in header["failures"]],
        vocabulary=header["vocabulary"],
        lines=view[at : at + line_bytes],
        **arrays,
    )


def _values(entry: DocumentEntry) -> list[Any]:
    return [*entry[:-1], *(getattr(entry.record, name) for name in _RECORD)]


def _entry(values: list[Any]) -> DocumentEntry:
    mark, content, hangul, chunks, *rest = values
    record = DocumentRecord(**dict(zip(_RECORD, rest, strict=True)))
    return DocumentEntry(Mark(*mark), content, hangul, chunks, record)


_RECORD = ("doc_id", "uri", "title", "lang", "format", "metadata", "sha256", "size")
_ARRAYS = (
    ("ends", np.int64, 1),
    ("tokens", np.int32, 1),
    ("sizes", np.int32, 1),
    ("terms", np.int32, 1),
    ("counts", np.int32, 1),
    ("ids", np.uint8, ID_BYTES),
    ("digests", np.uint8, ID_BYTES),
)
