"""From the spool to a bundle's files: rows in the order of chunk ids, however they came in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.pipeline.records import Failure
from indexer.pipeline.spool import Spool
from indexer.pipeline.vectors import VectorStore
from rag.index.bm25 import TermCounts
from rag.index.chunk_files import CHUNKS_PER_BATCH, write_chunk_columns, write_documents
from rag.index.counting_kernels import place_postings, rank_postings
from rag.types import Float32, Int64

TWICE = "another document has the same name or id"
_VECTORS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a spool that goes into the bundle.

    `documents` are numbers in the order of document ids, `by_key` the same in the order of their
    objects' keys; `row_of` int32, by number, is their row, -1 for those that are left out. `order`
    int64 holds the chunks' numbers in row order.
    `repeated` are the documents whose id another has.
    """

    documents: Sequence[int]
    by_key: Sequence[int]
    row_of: NDArray[np.int32]
    order: Int64
    repeated: tuple[Failure, ...]


def select(spool: Spool, wanted: Sequence[int]) -> Selection:
    """Of the documents `wanted`, each id once: of two, the one whose object's key comes first."""
    keys: dict[str, str] = {}  # a corpus has one key for all of its rows
    named = [
        (entry.record.doc_id, keys.setdefault(entry.mark.key, entry.mark.key), number)
        for number, entry in zip(wanted, spool.entries(wanted), strict=True)
    ]
    named.sort()
    documents: list[int] = []
    repeated: list[int] = []
    last = None
    for doc_id, _, number in named:
        (repeated if doc_id == last else documents).append(number)
        last = doc_id
    named.sort(key=lambda line: line[1])
    kept = set(documents)
    by_key = list(dict.fromkeys(number for _, _, number in named if number in kept))
    del named, keys, kept
    row_of = np.full(spool.documents, -1, dtype=np.int32)
    row_of[documents] = np.arange(len(documents), dtype=np.int32)
    positions = np.flatnonzero(row_of[spool.column("documents")] >= 0).astype(np.int64)
    ids = np.ascontiguousarray(spool.column("ids")[positions]).view(">u8").reshape(-1, 2)
    order = positions[np.lexsort((ids[:, 1], ids[:, 0]))]
    failures = tuple(
        Failure(entry.mark, entry.content, entry.record.doc_id, TWICE, False)
        for entry in spool.entries(repeated)
    )
    return Selection(documents, by_key, row_of, order, failures)


def write_text(folder: Path, spool: Spool, selection: Selection) -> None:
    """Writes documents.arrow and chunks.arrow."""
    write_documents(folder, (entry.record for entry in spool.entries(selection.documents)))
    write_chunk_columns(folder, _columns(spool, selection))


def chunk_ids(spool: Spool, selection: Selection) -> Iterator[str]:
    """Every chunk id, in row order."""
    ids = spool.column("ids")
    for position in selection.order.tolist():
        yield ids[position].tobytes().hex()


def _columns(spool: Spool, selection: Selection) -> Iterator[Mapping[str, list[Any]]]:
    ids, documents = spool.column("ids"), spool.column("documents")
    for start in range(0, len(selection.order), CHUNKS_PER_BATCH):
        positions = selection.order[start : start + CHUNKS_PER_BATCH]
        lines = spool.lines(positions)
        yield {
            "chunk_id": [value.tobytes() for value in ids[positions]],
            "doc": selection.row_of[documents[positions]].tolist(),
            **{name: [getattr(line, name) for line in lines] for name in _LINE},
        }


_LINE = ("page", "start", "end", "headings", "context", "text")


def write_vectors(path: Path, spool: Spool, selection: Selection, store: VectorStore) -> Float32:
    """float32 (chunks, d) in row order, in a file that is mapped."""
    digests, order = spool.column("digests"), selection.order
    with path.open("wb") as file:
        for start in range(0, len(order), _VECTORS_AT_ONCE):
            part = digests[order[start : start + _VECTORS_AT_ONCE]]
            block = np.empty((len(part), store.dimension), dtype=np.float32)
            store.gather(part, block)
            file.write(block.data)
    return np.memmap(path, dtype=np.float32, mode="r", shape=(len(order), store.dimension))


def count_terms(spool: Spool, selection: Selection) -> TermCounts:
    """The terms of every chunk in row order, ascending within a chunk."""
    sizes = spool.column("sizes")
    indptr = np.zeros(len(selection.order) + 1, dtype=np.int64)
    np.cumsum(sizes[selection.order], out=indptr[1:])
    heads = np.full(spool.chunks, -1, dtype=np.int64)  # where each chunk's postings go
    heads[selection.order] = indptr[:-1]
    terms = np.empty(int(indptr[-1]), dtype=np.int32)
    counts = np.empty_like(terms)
    ids: dict[str, int] = {}
    first = 0
    for number in range(spool.batches):
        batch = spool.batch(number)
        here = heads[first : first + len(batch.sizes)]
        first += len(batch.sizes)
        if (here >= 0).any():
            used = _used(batch.terms, batch.sizes, here, len(batch.vocabulary))
            known = [ids.setdefault(t, len(ids)) if u else 0
                     for t, u in zip(batch.vocabulary, used, strict=True)]  # fmt: skip
            mapped = np.array(known, dtype=np.int32)[batch.terms]
            place_postings(
                mapped, np.ascontiguousarray(batch.counts), np.ascontiguousarray(batch.sizes),
                here, terms, counts,
            )  # fmt: skip
    vocabulary = sorted(ids)
    rank = np.empty(len(ids), dtype=np.int32)
    rank[[ids[term] for term in vocabulary]] = np.arange(len(ids), dtype=np.int32)
    rank_postings(rank, indptr, terms, counts)
    return TermCounts(vocabulary, terms, counts, *_sizes_and_lengths(indptr, counts))


def _sizes_and_lengths(
    indptr: Int64, counts: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    sizes = np.diff(indptr).astype(np.int32)
    lengths = np.zeros_like(sizes)
    filled = sizes > 0
    if filled.any():
        lengths[filled] = np.add.reduceat(counts, indptr[:-1][filled])
    return sizes, lengths


def _used(
    terms: NDArray[np.int32], sizes: NDArray[np.int32], heads: Int64, count: int
) -> list[bool]:
    """Which of a batch's terms are in a chunk that is kept."""
    if (heads >= 0).all():
        return [True] * count
    kept = np.repeat(heads >= 0, sizes)
    used = np.zeros(count, dtype=np.bool_)
    used[terms[kept]] = True
    return [bool(value) for value in used]
