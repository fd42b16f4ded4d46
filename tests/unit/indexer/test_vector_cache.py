"""A cache of vectors that is compacted while it is used, and never loses what stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from indexer.incremental import vector_cache, vector_compaction, vector_objects
from indexer.incremental.vector_cache import VectorCache
from indexer.incremental.vector_compaction import compact, plan
from indexer.pipeline.records import ID_BYTES
from indexer.pipeline.vectors import Digests, VectorStore
from rag.errors import StorageError
from rag.storage import open_store

DIMENSION = 4
ENCODERS = ("a" * 64, "b" * 64)


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_prefix")) + "/cache"
    return str(tmp_path / "cache")


@pytest.fixture
def opened(uri: str, tmp_path: Path) -> Callable[..., VectorCache]:
    numbers = iter(range(1000))

    def make(encoder: str = ENCODERS[0]) -> VectorCache:
        scratch = tmp_path / f"scratch-{next(numbers)}"
        scratch.mkdir()
        return VectorCache(uri, encoder, DIMENSION, scratch)

    return make


def some(
    first: int, count: int
) -> tuple[Digests, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    digests = np.zeros((count, ID_BYTES), dtype=np.uint8)
    digests[:, -2] = np.arange(first, first + count) // 256
    digests[:, -1] = np.arange(first, first + count) % 256
    return digests, np.arange(first, first + count, dtype=np.float32)[:, None].repeat(DIMENSION, 1)


def save(cache: VectorCache, first: int, count: int, folder: Path) -> None:
    folder = folder / f"store-{first}-{count}-{time.monotonic_ns()}"
    folder.mkdir()
    store = VectorStore(folder, DIMENSION)
    store.add(*some(first, count))
    cache.save(store)
    store.close()


def keys(uri: str) -> list[str]:
    return [info.key for info in open_store(uri).list()]


def holds(cache: VectorCache, first: int, count: int) -> bool:
    digests, vectors = some(first, count)
    there, found = cache.find_vectors(digests)
    return bool(there.all()) and np.array_equal(found, vectors)


def test_small_objects_become_one_and_every_vector_stays(
    uri: str, opened: Callable[..., VectorCache], tmp_path: Path
) -> None:
    for first in (0, 10, 20):
        save(opened(), first, 12, tmp_path)  # two are there already, each time but the first
    save(opened(ENCODERS[1]), 0, 5, tmp_path)
    reader = opened()
    assert len(keys(uri)) == 4
    done = compact(uri, None)
    assert (len(done.kept), len(done.dropped), len(done.merged)) == (1, 0, 1)
    assert len(keys(uri)) == 2
    assert holds(opened(), 0, 32)
    assert holds(opened(ENCODERS[1]), 0, 5)
    assert holds(reader, 0, 32), "a build that had listed the objects before"
    before = keys(uri)
    assert not compact(uri, None).merged
    assert keys(uri) == before


def test_large_objects_stay_as_they_are(
    uri: str,
    opened: Callable[..., VectorCache],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vector_compaction, "VECTORS_AT_MOST", 40)
    monkeypatch.setattr(vector_compaction, "_SMALL", 20)
    for first, count in ((0, 25), (30, 15), (50, 15), (70, 15)):
        save(opened(), first, count, tmp_path)
    done = compact(uri, None)
    assert len(done.kept) == 2
    assert [len(group) for group in done.merged] == [2]
    for first, count in ((0, 25), (30, 15), (50, 15), (70, 15)):
        assert holds(opened(), first, count)


def test_the_oldest_go_beyond_a_size_and_a_merged_one_keeps_its_age(
    uri: str,
    opened: Callable[..., VectorCache],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for day, first in enumerate((0, 10, 20)):
        clock = SimpleNamespace(time=lambda day=day: 86400.0 * (1 + day))
        with monkeypatch.context() as patch:
            patch.setattr(vector_cache, "time", clock)
            save(opened(), first, 10, tmp_path)
    one = open_store(uri).info(keys(uri)[0]).size
    wanted = plan(uri, 2 * one)
    assert [vector_objects.age(info) for info in wanted.dropped] == [86400]
    assert len(keys(uri)) == 3, "a plan changes nothing"
    compact(uri, 2 * one)
    assert holds(opened(), 10, 20)
    assert not opened().find_vectors(some(0, 10)[0])[0].any()
    assert [vector_objects.age(info) for info in open_store(uri).list()] == [3 * 86400]
    assert compact(uri, 0).dropped
    assert keys(uri) == []


def test_objects_without_an_age_in_their_name_are_as_old_as_they_are(
    uri: str, opened: Callable[..., VectorCache], tmp_path: Path
) -> None:
    save(opened(), 0, 10, tmp_path)
    (key,) = keys(uri)
    store = open_store(uri)
    folder, _, name = key.partition("/")
    store.write(f"{folder}/{name.partition('-')[2]}", store.read(key)[0], expected=None)
    store.delete([key])
    save(opened(), 10, 10, tmp_path)
    (info,) = [info for info in store.list() if "-" not in info.key]
    assert vector_objects.age(info) == int(info.modified)
    compact(uri, None)
    assert len(keys(uri)) == 1
    assert holds(opened(), 0, 20)


def test_a_damaged_object_is_named(
    uri: str, opened: Callable[..., VectorCache], tmp_path: Path
) -> None:
    save(opened(), 0, 10, tmp_path)
    (key,) = keys(uri)
    store = open_store(uri)
    data, etag = store.read(key)
    store.write(key, data[:-1], expected=etag)
    for use in (opened, lambda: compact(uri, None)):
        with pytest.raises(StorageError, match=f"{key.partition('/')[2]} is damaged; delete it"):
            use()
