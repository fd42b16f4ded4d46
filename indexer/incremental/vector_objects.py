"""The objects of a vector cache: many vectors of one encoder in one, created once, never changed.

Below a cache's root, `<encoder>/<age>-<name>.vectors` holds the number of vectors and their length
(uint64 each), their texts' digests (16 bytes each, ascending) and float32 values. A name is a
digest of the digests; the age is when the newest of them was computed, in seconds since the epoch
(10 hex digits; without one, when the object was written).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from indexer.pipeline.records import ID_BYTES
from indexer.pipeline.vectors import Digests
from rag.errors import StorageError
from rag.storage import ObjectInfo, Store
from rag.types import Float32

VECTORS_AT_MOST = 65_536
"""In one object."""
KEY = f"S{ID_BYTES}"
"""NumPy's type for a digest as one value; ascending as its bytes are."""
_HEAD = struct.Struct("<QQ")
_ENDING = ".vectors"
_AGE = re.compile(r"(?:.*/)?([0-9a-f]{10})-[0-9a-f]+\.vectors")


class Shape(NamedTuple):
    """How many vectors an object holds, and their length."""

    rows: int
    dimension: int

    @property
    def vectors_at(self) -> int:
        """Where the first vector begins, in bytes."""
        return _HEAD.size + self.rows * ID_BYTES

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self.vectors_at + 4 * self.rows * self.dimension


def listed(store: Store) -> Iterator[ObjectInfo]:
    """The cache's objects below `store`."""
    return (info for info in store.list() if info.key.endswith(_ENDING))


def age(info: ObjectInfo) -> int:
    """When its newest vector was computed, in seconds since the epoch."""
    found = _AGE.fullmatch(info.key)
    return int(found[1], 16) if found else int(info.modified)


def shape(store: Store, info: ObjectInfo) -> Shape:
    """Raises StorageError for an object that is damaged."""
    head = store.read_range(info, 0, _HEAD.size)
    found = Shape(*_HEAD.unpack(head)) if len(head) == _HEAD.size else Shape(0, 0)
    if info.size != found.size:
        raise damaged(store, info)
    return found


def damaged(store: Store, info: ObjectInfo) -> StorageError:
    """What is said of an object that is not as it should be."""
    return StorageError(
        f"{store.uri}/{info.key} is damaged; delete it, and its vectors are computed again"
    )


def read_digests(store: Store, info: ObjectInfo, found: Shape) -> Digests:
    """uint8 (rows, 16)."""
    data = store.read_range(info, _HEAD.size, found.vectors_at)
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, ID_BYTES)


def unpack(data: bytes) -> tuple[Digests, Float32]:
    """The digests, uint8 (n, 16), and vectors, float32 (n, d), of a whole object."""
    found = Shape(*_HEAD.unpack_from(data))
    digests = np.frombuffer(data, np.uint8, found.rows * ID_BYTES, _HEAD.size)
    vectors = np.frombuffer(data, np.float32, -1, found.vectors_at)
    return digests.reshape(-1, ID_BYTES), vectors.reshape(found.rows, found.dimension)


def pack(digests: Digests, vectors: Float32, seconds: int) -> tuple[str, bytes]:
    """An object's name and bytes, of vectors computed at `seconds`; each digest once."""
    keys = np.ascontiguousarray(digests).view(KEY).ravel()
    _, order = np.unique(keys, return_index=True)
    ascending = digests[order].tobytes()
    head = _HEAD.pack(len(order), vectors.shape[1])
    name = f"{seconds:010x}-{hashlib.sha256(ascending).hexdigest()[:32]}{_ENDING}"
    return name, head + ascending + vectors[order].tobytes()
