"""Parsed batches on disk, in the order they came, and what must be in memory of them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from indexer.pipeline.records import (
    ID_BYTES,
    ChunkLine,
    DocumentEntry,
    ParsedBatch,
    decode,
    entry_line,
    read_entry,
    read_line,
)
from indexer.pipeline.segments import Place, Segments
from rag.types import Int64

_EMPTY: dict[str, NDArray[Any]] = {
    "ids": np.zeros((0, ID_BYTES), dtype=np.uint8),
    "digests": np.zeros((0, ID_BYTES), dtype=np.uint8),
    "segments": np.zeros(0, dtype=np.int32),
    "offsets": np.zeros(0, dtype=np.int64),
    "lengths": np.zeros(0, dtype=np.int32),
    "documents": np.zeros(0, dtype=np.int32),
    "sizes": np.zeros(0, dtype=np.int32),
}


class Spool:
    """Batches on disk; of each chunk 56 bytes are in memory, of each document 8. A context manager.

    Batches, documents and chunks are numbered in the order they were added.
    """

    def __init__(self, folder: Path) -> None:
        self._segments = Segments(folder, "spool")
        self._places: list[Place] = []
        self._chunks = 0
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _EMPTY}
        # The documents' entries once more, for reading them one by one in any order.
        self._entries = TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the spool
        self._entry_ends = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._segments.close()
        self._entries.close()

    @property
    def chunks(self) -> int:
        return self._chunks

    @property
    def documents(self) -> int:
        return len(self._entry_ends) - 1

    @property
    def batches(self) -> int:
        return len(self._places)

    def restore(self) -> Iterator[ParsedBatch]:
        """Takes up what earlier runs left, batch by batch."""
        for place, payload in self._segments.restore():
            batch = decode(payload)
            self._take(batch, place)
            yield batch

    def add(self, payload: bytes) -> ParsedBatch:
        """Appends one encoded batch, and returns it decoded."""
        batch = decode(payload)
        self._take(batch, self._segments.append(payload))
        return batch

    def sync(self) -> None:
        """Returns when everything is on the disk."""
        self._segments.sync()

    def column(self, name: str) -> NDArray[Any]:
        """One value for each chunk: `ids` and `digests` uint8 (n, 16), `documents` (the number of
        the chunk's document) and `sizes` (its different terms) int32 (n,).
        """
        parts = self._columns[name]
        if len(parts) != 1:
            parts[:] = [np.concatenate([_EMPTY[name], *parts])]
        return parts[0]

    def lines(self, positions: Int64) -> list[ChunkLine]:
        """The chunks of these numbers."""
        columns = (self.column(name)[positions] for name in ("segments", "offsets", "lengths"))
        read = self._segments.read
        places = zip(*(values.tolist() for values in columns), strict=True)
        return [read_line(read(*place)) for place in places]

    def batch(self, number: int) -> ParsedBatch:
        """The batch of this number."""
        return decode(self._segments.read(*self._places[number]))

    def entries(self, numbers: Iterable[int]) -> Iterator[DocumentEntry]:
        """The documents of these numbers, in the order given."""
        self._entries.flush()
        file = self._entries.fileno()
        for number in numbers:
            start, end = self._entry_ends[number : number + 2]
            yield read_entry(os.pread(file, end - start, start))

    def _take(self, batch: ParsedBatch, place: Place) -> None:
        first = self.documents
        for entry in batch.documents:
            line = entry_line(entry)
            self._entries.write(line)
            self._entry_ends.append(self._entry_ends[-1] + len(line))
        counts = [entry.chunks for entry in batch.documents]
        lengths = np.diff(batch.ends, prepend=0)
        lines_at = place.offset + place.size - len(batch.lines)
        columns: dict[str, NDArray[Any]] = {
            "ids": batch.ids.copy(),
            "digests": batch.digests.copy(),
            "sizes": batch.sizes.copy(),
            "segments": np.full(len(batch.ends), place.segment, dtype=np.int32),
            "offsets": lines_at + batch.ends - lengths,
            "lengths": lengths.astype(np.int32),
            "documents": np.repeat(np.arange(first, first + len(counts), dtype=np.int32), counts),
        }
        for name, values in columns.items():
            self._columns[name].append(values)
        self._places.append(place)
        self._chunks += len(batch.ids)
