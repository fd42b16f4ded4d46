"""Fewer, larger objects for a vector cache, and the oldest vectors gone beyond a size.

Safe beside builds that read and write the same cache, and to kill at any moment: a merged object
is written before those it was made of are deleted, and a reader that misses one lists again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from indexer.incremental.vector_objects import (
    VECTORS_AT_MOST,
    age,
    damaged,
    listed,
    pack,
    shape,
    unpack,
)
from rag.errors import ConditionFailed, ObjectNotFound
from rag.storage import ObjectInfo, Store, open_store

_SMALL = VECTORS_AT_MOST // 2


@dataclass(frozen=True, slots=True)
class Compaction:
    """What is done to a cache: the objects that are `kept` as they are, those that are `dropped`,
    and the groups that are `merged` into one each.
    """

    kept: tuple[ObjectInfo, ...]
    dropped: tuple[ObjectInfo, ...]
    merged: tuple[tuple[ObjectInfo, ...], ...]

    @property
    def size(self) -> int:
        """Bytes of what stays; what is merged may become less."""
        return sum(info.size for group in (self.kept, *self.merged) for info in group)


def plan(uri: str, max_bytes: int | None) -> Compaction:
    """What `compact` would do. Raises StorageError for an object that is damaged."""
    store = open_store(uri)
    kept: list[ObjectInfo] = []
    dropped: list[ObjectInfo] = []
    held = 0
    for info in sorted(listed(store), key=lambda info: (-age(info), info.key)):
        held += info.size
        (dropped if max_bytes is not None and held > max_bytes else kept).append(info)
    groups = _groups(store, kept)
    grouped = {info.key for group in groups for info in group}
    rest = tuple(info for info in kept if info.key not in grouped)
    return Compaction(rest, tuple(dropped), groups)


def compact(uri: str, max_bytes: int | None) -> Compaction:
    """Drops the oldest objects of all encoders below `uri` until the others have `max_bytes` or
    less (None: any size), and merges the small ones of each encoder; returns what was done.

    What another compaction has taken meanwhile is passed over. Raises StorageError.
    """
    found = plan(uri, max_bytes)
    store = open_store(uri)
    store.delete([info.key for info in found.dropped])
    for group in found.merged:
        _merge(store, group)
    return found


def _groups(store: Store, infos: Sequence[ObjectInfo]) -> tuple[tuple[ObjectInfo, ...], ...]:
    """Small objects of one encoder, neighbours in age, two or more in each group."""
    groups: list[list[ObjectInfo]] = []
    for _, members in groupby(sorted(infos, key=_folder), key=_folder):  # keeps the order of age
        group: list[ObjectInfo] = []
        vectors = 0
        for info in members:
            count = shape(store, info).rows
            if count >= _SMALL:
                continue
            if vectors + count > VECTORS_AT_MOST:
                groups.append(group)
                group, vectors = [], 0
            group.append(info)
            vectors += count
        groups.append(group)
    return tuple(tuple(group) for group in groups if len(group) > 1)


def _merge(store: Store, group: Sequence[ObjectInfo]) -> None:
    parts = []
    for info in group:
        try:
            data, _ = store.read(info.key)
        except ObjectNotFound:
            return  # another compaction is at work on these
        if len(data) != info.size:
            raise damaged(store, info)
        parts.append(unpack(data))
    digests = np.concatenate([some for some, _ in parts])
    vectors = np.concatenate([some for _, some in parts])
    name, data = pack(digests, vectors, max(map(age, group)))
    merged = f"{_folder(group[0])}/{name}"
    with contextlib.suppress(ConditionFailed):  # an earlier run, or another one, has written it
        store.write(merged, data, expected=None)
    store.delete([info.key for info in group if info.key != merged])


def _folder(info: ObjectInfo) -> str:
    return info.key.rpartition("/")[0]
