from __future__ import annotations

import threading

import numpy as np
import pytest

from rag.models.embedder import EncodedQuery
from rag.service.vector_cache import ENTRY_BYTES, Key, VectorCache

BATCH = np.arange(4096, dtype=np.float32).reshape(4, 1024)
ONE = ENTRY_BYTES + 4 * 1024 + 4


def key(text: str, encoder: str = "e", prompt: str = "query") -> Key:
    return Key(encoder, prompt, text)


def encoded(row: int = 0) -> EncodedQuery:
    return EncodedQuery(BATCH[row], 1.0)


def test_what_was_kept_is_found_by_encoder_prompt_and_text() -> None:
    cache = VectorCache(10 * ONE)
    cache.put(key("a"), encoded(2))
    found = cache.get(key("a"))
    assert found is not None
    assert found.vector.tolist() == BATCH[2].tolist()
    assert cache.get(key("a", encoder="f")) is None
    assert cache.get(key("a", prompt="passage")) is None
    assert (cache.hits, cache.misses) == (1, 2)


def test_an_entry_does_not_keep_its_batch_alive() -> None:
    cache = VectorCache(10 * ONE)
    cache.put(key("a"), encoded())
    found = cache.get(key("a"))
    assert found is not None
    assert found.vector.base is None


def test_the_least_recently_used_leaves() -> None:
    cache = VectorCache(2 * ONE)
    cache.put(key("a"), encoded(0))
    cache.put(key("b"), encoded(1))
    cache.get(key("a"))
    cache.put(key("c"), encoded(2))
    assert [cache.get(key(name)) is None for name in "abc"] == [False, True, False]
    assert (cache.bytes, len(cache), cache.evictions) == (2 * ONE, 2, 1)


@pytest.mark.parametrize("max_bytes", [0, ONE - 1])
def test_what_does_not_fit_is_not_kept(max_bytes: int) -> None:
    cache = VectorCache(max_bytes)
    cache.put(key("a"), encoded())
    assert cache.get(key("a")) is None
    assert cache.bytes == 0


def test_clearing_one_encoder_leaves_the_others() -> None:
    cache = VectorCache(10 * ONE)
    cache.put(key("a"), encoded())
    cache.put(key("a", encoder="f"), encoded())
    cache.clear("e")
    assert cache.get(key("a")) is None
    assert cache.get(key("a", encoder="f")) is not None
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


def test_many_threads_leave_the_account_right() -> None:
    cache = VectorCache(5 * ONE)

    def work(seed: int) -> None:
        for step in range(500):
            name = key(chr(97 + (seed * 7 + step * 3) % 20))
            if cache.get(name) is None:
                cache.put(name, encoded(step % 4))
            if step % 100 == 0:
                cache.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.bytes == len(cache) * ONE <= 5 * ONE
    assert cache.hits + cache.misses == 2000
