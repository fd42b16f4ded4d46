"""Vectors by the digest of the text they are of, on disk."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.pipeline.records import ID_BYTES
from indexer.pipeline.segments import Place, Segments
from rag.types import Float32

Digests = NDArray[np.uint8]
_COUNT = struct.Struct("<Q")
_AT_ONCE = 4096


class VectorStore:
    """float32 vectors of one encoder, each under the digest (16 bytes) of its text.

    Those that were computed here survive the process; those that were `borrow`ed from elsewhere
    lie in a second file that the next run begins anew. Adding is for one thread at a time.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.dimension = dimension
        self._segments = Segments(folder, "vectors")
        for old in folder.glob("borrowed-*.bin"):
            old.unlink()
        self._borrowed = Segments(folder, "borrowed")
        self._slots: dict[bytes, int] = {}
        self._places: list[tuple[Segments, Place, int]] = []  # with the first slot
        self._count = 0

    def close(self) -> None:
        self._segments.close()
        self._borrowed.close()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def missing(self, digests: Digests) -> NDArray[np.int64]:
        """The places in `digests` of those that are not there, each text once."""
        seen: set[bytes] = set()
        places = []
        for place, digest in enumerate(map(bytes, digests)):
            if digest not in self._slots and digest not in seen:
                seen.add(digest)
                places.append(place)
        return np.array(places, dtype=np.int64)

    def computed(self) -> Iterator[tuple[Digests, Float32]]:
        """What was computed here, part by part."""
        for segments, place, _ in self._places:
            if segments is self._segments:
                yield self._decoded(segments.read(*place))

    def restore(self) -> None:
        """Takes up what earlier runs computed."""
        for place, payload in self._segments.restore():
            self._take(self._segments, place, self._decoded(payload)[0])

    def _decoded(self, payload: bytes) -> tuple[Digests, Float32]:
        (count,) = _COUNT.unpack_from(payload)
        digests = np.frombuffer(payload, np.uint8, count * ID_BYTES, _COUNT.size)
        vectors = np.frombuffer(payload, np.float32, -1, _COUNT.size + digests.nbytes)
        return digests.reshape(-1, ID_BYTES), vectors.reshape(count, self.dimension)

    def add(self, digests: Digests, vectors: Float32) -> None:
        """Keeps float32 (n, d) `vectors`, computed here."""
        self._append(self._segments, digests, vectors)

    def borrow(self, digests: Digests, vectors: Float32) -> None:
        """Takes over float32 (n, d) `vectors` that are safe elsewhere."""
        self._append(self._borrowed, digests, vectors)

    def sync(self) -> None:
        """Returns when everything computed here is on the disk."""
        self._segments.sync()

    def gather(self, digests: Digests, target: Float32) -> None:
        """Fills `target`, float32 (n, d) and contiguous, with the vector of each digest; KeyError
        for one that is not there.
        """
        starts = np.array([first for _, _, first in self._places], dtype=np.int64)
        row_bytes = 4 * self.dimension
        for begin in range(0, len(digests), _AT_ONCE):
            part = digests[begin : begin + _AT_ONCE]
            slots = np.array([self._slots[digest.tobytes()] for digest in part], dtype=np.int64)
            numbers = (np.searchsorted(starts, slots, side="right") - 1).tolist()
            rows = (slots - starts[numbers]).tolist()
            for i, (number, row) in enumerate(zip(numbers, rows, strict=True)):
                segments, place, _ = self._places[number]
                count = (place.size - _COUNT.size) // (ID_BYTES + row_bytes)
                offset = place.offset + _COUNT.size + count * ID_BYTES + row * row_bytes
                view = memoryview(target[begin + i]).cast("B")
                segments.read_into(place.segment, offset, view)

    def _append(self, segments: Segments, digests: Digests, vectors: Float32) -> None:
        payload = _COUNT.pack(len(digests)) + digests.tobytes() + vectors.tobytes()
        self._take(segments, segments.append(payload), digests)

    def _take(self, segments: Segments, place: Place, digests: Digests) -> None:
        self._places.append((segments, place, self._count))
        for row, digest in enumerate(digests):
            self._slots.setdefault(digest.tobytes(), self._count + row)
        self._count += len(digests)
