"""Vectors of all builds before, by encoder and text, in a folder or an object store; what lies
there is in vector_objects.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.incremental.vector_objects import (
    KEY,
    VECTORS_AT_MOST,
    Shape,
    damaged,
    listed,
    pack,
    read_digests,
    shape,
)
from indexer.pipeline.vectors import Digests, VectorStore
from rag.errors import ConditionFailed, ObjectNotFound
from rag.storage import ObjectInfo, Store, is_remote, join, open_store
from rag.types import Float32, RowMask

_ATTEMPTS = 5
"""How often the objects are listed anew, where a compaction takes some away meanwhile."""


class VectorCache:
    """The vectors of one encoder below `uri`; `scratch` is a folder for copies of remote ones."""

    def __init__(self, uri: str, encoder: str, dimension: int, scratch: Path) -> None:
        self._store: Store = open_store(join(uri, encoder[:32]))
        self._local = None if is_remote(uri) else Path(self._store.uri)
        self._scratch = scratch
        self._dimension = dimension
        self._index()

    def find_vectors(self, digests: Digests) -> tuple[RowMask, Float32]:
        """Which of the texts there are (bool (n,)), and the vectors of those, float32 (m, d)."""
        wanted = np.ascontiguousarray(digests).view(KEY).ravel()
        for _ in range(_ATTEMPTS):
            try:
                return self._find(wanted)
            except ObjectNotFound:
                self._index()
        return self._find(wanted)

    def save(self, store: VectorStore) -> int:
        """Adds what `store` computed and is not here yet; returns how many vectors that were."""
        saved = 0
        for digests, vectors in _parts(store):
            there, _ = self.find_vectors(digests)
            digests, vectors = digests[~there], vectors[~there]
            if not len(digests):
                continue
            try:
                self._store.write(*pack(digests, vectors, int(time.time())), expected=None)
            except ConditionFailed:
                continue  # another build had the same to say
            saved += len(digests)
        return saved

    def _find(self, wanted: NDArray[Any]) -> tuple[RowMask, Float32]:
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

    def _index(self) -> None:
        """Lists the objects and reads their digests."""
        self._objects: list[tuple[ObjectInfo, Shape]] = []
        self._maps: dict[int, Float32] = {}
        keys: list[NDArray[Any]] = []
        for info in listed(self._store):
            try:
                found = shape(self._store, info)
                if found.dimension != self._dimension:
                    raise damaged(self._store, info)
                digests = read_digests(self._store, info, found)
            except (ObjectNotFound, ConditionFailed):
                continue  # a compaction has merged it into another
            keys.append(digests.view(KEY).ravel())
            self._objects.append((info, found))
        sizes = [len(part) for part in keys]
        joined = np.concatenate(keys) if keys else np.zeros(0, dtype=KEY)
        owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        rows = np.concatenate([np.arange(n) for n in sizes]) if sizes else np.zeros(0)
        order = np.argsort(joined, kind="stable")
        self._keys, self._owners = joined[order], owners[order]
        self._rows = rows[order].astype(np.int64)

    def _vectors(self, owner: int) -> Float32:
        """The vectors of one object, mapped from this machine's disk. Raises ObjectNotFound."""
        if owner not in self._maps:
            info, found = self._objects[owner]
            path = self._scratch / info.key if self._local is None else self._local / info.key
            if self._local is None and not path.is_file():
                part = path.with_suffix(".part")
                part.unlink(missing_ok=True)  # of an attempt that failed
                self._store.download(info.key, part)
                part.rename(path)
            try:
                self._maps[owner] = np.memmap(
                    path, dtype=np.float32, mode="r", shape=(found.rows, found.dimension),
                    offset=found.vectors_at,
                )  # fmt: skip
            except FileNotFoundError:
                raise ObjectNotFound(f"{path} is not there") from None
        return self._maps[owner]


def _parts(store: VectorStore) -> Iterator[tuple[Digests, Float32]]:
    """What a store computed, in parts of as many as one object holds."""
    digests: list[Digests] = []
    vectors: list[Float32] = []
    for some_digests, some_vectors in store.computed():
        digests.append(some_digests)
        vectors.append(some_vectors)
        if sum(map(len, digests)) >= VECTORS_AT_MOST:
            yield np.concatenate(digests), np.concatenate(vectors)
            digests, vectors = [], []
    if digests:
        yield np.concatenate(digests), np.concatenate(vectors)
