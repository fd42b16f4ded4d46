"""Vectors of all builds before, by encoder and text, in a folder or an object store.

Below the root, `<encoder>/<name>.vectors` holds many: the number of vectors and their length
(uint64 each), their texts' digests (16 bytes each, ascending) and float32 values. Objects are
created once and never changed; a name is a digest of the digests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.pipeline.records import ID_BYTES
from indexer.pipeline.vectors import Digests, VectorStore
from rag.errors import ConditionFailed, StorageError
from rag.storage import ObjectInfo, Store, is_remote, join, open_store
from rag.types import Float32, RowMask

_HEAD = struct.Struct("<QQ")
_ENDING = ".vectors"
_VECTORS_AT_MOST = 65_536  # in one object
_KEY = f"S{ID_BYTES}"


class VectorCache:
    """The vectors of one encoder below `uri`; `scratch` is a folder for copies of remote ones."""

    def __init__(self, uri: str, encoder: str, dimension: int, scratch: Path) -> None:
        self._store: Store = open_store(join(uri, encoder[:32]))
        self._local = None if is_remote(uri) else Path(self._store.uri)
        self._scratch = scratch
        self._dimension = dimension
        self._objects: list[ObjectInfo] = []
        self._maps: dict[int, Float32] = {}
        self._keys, self._owners, self._rows = self._index()

    def find_vectors(self, digests: Digests) -> tuple[RowMask, Float32]:
        """Which of the texts there are (bool (n,)), and the vectors of those, float32 (m, d)."""
        wanted = np.ascontiguousarray(digests).view(_KEY).ravel()
        if not len(self._keys):
            return np.zeros(len(wanted), dtype=np.bool_), np.zeros((0, self._dimension), np.float32)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        there = self._keys[places] == wanted
        found = np.empty((int(there.sum()), self._dimension), dtype=np.float32)
        owners, rows = self._owners[places[there]], self._rows[places[there]]
        for owner in np.unique(owners).tolist():
            chosen = owners == owner
            found[chosen] = self._vectors(owner)[rows[chosen]]
        return there, found

    def save(self, store: VectorStore) -> int:
        """Adds what `store` computed and is not here yet; returns how many vectors that were."""
        saved = 0
        for digests, vectors in _parts(store):
            there, _ = self.find_vectors(digests)
            digests, vectors = digests[~there], vectors[~there]
            if not len(digests):
                continue
            keys = digests.view(_KEY).ravel()
            order = np.argsort(keys, kind="stable")
            listed = digests[order].tobytes()
            data = _HEAD.pack(len(keys), self._dimension) + listed + vectors[order].tobytes()
            try:
                name = hashlib.sha256(listed).hexdigest()[:32] + _ENDING
                self._store.write(name, data, expected=None)
            except ConditionFailed:
                continue  # another build had the same to say
            saved += len(keys)
        return saved

    def _index(self) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]:
        keys: list[NDArray[Any]] = []
        for info in self._store.list():
            if not info.key.endswith(_ENDING):
                continue
            count, dimension = _HEAD.unpack(self._store.read_range(info, 0, _HEAD.size))
            expected = _HEAD.size + count * (ID_BYTES + 4 * dimension)
            if dimension != self._dimension or info.size != expected:
                raise StorageError(
                    f"{self._store.uri}/{info.key} is damaged; delete it, and its vectors are"
                    " computed again"
                )
            digests = self._store.read_range(info, _HEAD.size, _HEAD.size + count * ID_BYTES)
            keys.append(np.frombuffer(digests, dtype=_KEY))
            self._objects.append(info)
        sizes = [len(part) for part in keys]
        joined = np.concatenate(keys) if keys else np.zeros(0, dtype=_KEY)
        owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        rows = np.concatenate([np.arange(n) for n in sizes]) if sizes else np.zeros(0)
        order = np.argsort(joined, kind="stable")
        return joined[order], owners[order], rows[order].astype(np.int64)

    def _vectors(self, owner: int) -> Float32:
        """The vectors of one object, mapped from this machine's disk."""
        if owner not in self._maps:
            info = self._objects[owner]
            path = self._scratch / info.key if self._local is None else self._local / info.key
            if self._local is None:
                self._store.download(info.key, path)
            count = (info.size - _HEAD.size) // (ID_BYTES + 4 * self._dimension)
            self._maps[owner] = np.memmap(
                path, dtype=np.float32, mode="r", shape=(count, self._dimension),
                offset=_HEAD.size + count * ID_BYTES,
            )  # fmt: skip
        return self._maps[owner]


def _parts(store: VectorStore) -> Iterator[tuple[Digests, Float32]]:
    """What a store computed, in parts of as many as one object holds."""
    digests: list[Digests] = []
    vectors: list[Float32] = []
    for some_digests, some_vectors in store.computed():
        digests.append(some_digests)
        vectors.append(some_vectors)
        if sum(map(len, digests)) >= _VECTORS_AT_MOST:
            yield np.concatenate(digests), np.concatenate(vectors)
            digests, vectors = [], []
    if digests:
        yield np.concatenate(digests), np.concatenate(vectors)
