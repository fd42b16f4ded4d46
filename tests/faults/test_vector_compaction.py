"""A compaction of a vector cache that is killed between any two changes loses no vector."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np

from indexer.incremental.vector_cache import VectorCache
from indexer.incremental.vector_objects import pack
from indexer.pipeline.records import ID_BYTES
from rag.storage import open_store

ENCODER = "a" * 64
DIGESTS = np.frombuffer(bytes(range(48 * 5)), dtype=np.uint8).reshape(-1, ID_BYTES)
VECTORS = np.arange(len(DIGESTS) * 4, dtype=np.float32).reshape(-1, 4)


def start(folder: Path) -> None:
    store = open_store(str(folder / ENCODER[:32]))
    for day, first in enumerate(range(0, len(DIGESTS), 3), start=1):
        rows = slice(first, first + 3)
        store.write(*pack(DIGESTS[rows], VECTORS[rows], 86400 * day), expected=None)


def test_killed_between_any_two_changes(launcher: Any, tmp_path: Path) -> None:
    start(tmp_path / "start")
    scratch = tmp_path / "scratch"
    for step in range(50):
        cache = str(tmp_path / f"cache-{step}")
        shutil.copytree(tmp_path / "start", cache)
        reader = VectorCache(cache, ENCODER, 4, scratch)
        code, said = launcher.run("prune-vectors", cache, watched=cache, die_at=step)
        assert code in (0, -signal.SIGKILL), said
        for opened in (reader, VectorCache(cache, ENCODER, 4, scratch)):
            there, found = opened.find_vectors(DIGESTS)
            assert there.all()
            assert np.array_equal(found, VECTORS)
        assert launcher.run("prune-vectors", cache)[0] == 0
        assert len(list(open_store(cache).list())) == 1
        there, found = VectorCache(cache, ENCODER, 4, scratch).find_vectors(DIGESTS)
        assert there.all()
        assert np.array_equal(found, VECTORS)
        if code == 0:
            break
    assert step > 5
    assert code == 0
