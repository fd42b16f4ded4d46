"""Append-only files of checksummed frames: what a killed build goes on from.

A segment is `NAME-NNNNNN.bin`, frames of length, CRC and payload. Once another segment is begun
it never changes again, which suits folders that are copied elsewhere while a job runs; a frame
that is torn, and what follows it in its segment, counts as never written.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FRAME = struct.Struct("<4sIII")
_MAGIC = b"RAG1"
SEGMENT_BYTES = 64 * 2**20


class Place(NamedTuple):
    """Where a payload lies: segment number, offset and size in bytes."""

    segment: int
    offset: int
    size: int


class Segments:
    """The segments called `name` in `folder`; one writer, any number of readers."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._segment = 0
        self._file: int | None = None
        self._written = 0
        self._readers: dict[int, int] = {}

    def close(self) -> None:
        self._end_segment()
        for descriptor in self._readers.values():
            os.close(descriptor)
        self._readers.clear()

    def restore(self) -> Iterator[tuple[Place, bytes]]:
        """Every whole frame that earlier runs left; torn ones are cut off."""
        for path in sorted(self._folder.glob(f"{self._name}-*.bin")):
            self._segment = int(path.stem.rpartition("-")[2])
            data = path.read_bytes()
            at = 0
            while (end := _frame_end(data, at)) is not None:
                start = at + _FRAME.size
                yield Place(self._segment, start, end - start), data[start:end]
                at = end
            if at < len(data):
                os.truncate(path, at)

    def append(self, payload: bytes) -> Place:
        """Adds a frame; it survives the process from here on, and the machine after `sync`."""
        if self._file is None or self._written + len(payload) > SEGMENT_BYTES:
            self._begin_segment()
        frame = _FRAME.pack(_MAGIC, len(payload), zlib.crc32(payload), 0)
        place = Place(self._segment, self._written + len(frame), len(payload))
        view = memoryview(frame + payload)
        while view and self._file is not None:
            view = view[os.write(self._file, view) :]
        self._written = place.offset + place.size
        return place

    def sync(self) -> None:
        """Returns when everything is on the disk."""
        if self._file is not None:
            os.fsync(self._file)

    def read(self, segment: int, offset: int, size: int) -> bytes:
        return os.pread(self._reader(segment), size, offset)

    def read_into(self, segment: int, offset: int, target: memoryview) -> None:
        os.preadv(self._reader(segment), [target], offset)

    def _reader(self, segment: int) -> int:
        if segment not in self._readers:
            path = self._path(segment)
            self._readers[segment] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._readers[segment]

    def _begin_segment(self) -> None:
        self._end_segment()
        self._segment += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self._path(self._segment), flags, 0o644)
        self._written = 0

    def _end_segment(self) -> None:
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def _path(self, segment: int) -> Path:
        return self._folder / f"{self._name}-{segment:06d}.bin"


def _frame_end(data: bytes, at: int) -> int | None:
    """Where the frame at `at` ends, or None if there is no whole one."""
    if at + _FRAME.size > len(data):
        return None
    magic, size, crc, _ = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    if magic != _MAGIC or start + size > len(data):
        return None
    whole = zlib.crc32(memoryview(data)[start : start + size]) == crc
    return start + size if whole else None
