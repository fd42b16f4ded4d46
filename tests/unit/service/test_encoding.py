"""The encoder's stage over the real encoder: what is computed, for whom, and how often."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.errors import InvalidRequest, Overloaded
from rag.models.embedder import Embedder
from rag.models.load import load_embedder
from rag.service.batching import BatchStats
from rag.service.encoding import EncoderPool, EncoderStage
from rag.service.vector_cache import VectorCache
from rag.types import Float32, Int64


class Watched:
    """The real encoder; notes what it is given and on which thread it is asked."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.config = embedder.config
        self.batches: list[list[str]] = []
        self.seen_on: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Semaphore(0)

    def embed_queries(self, texts: Sequence[str]) -> Float32:
        self._note()
        self.batches.append(list(texts))
        self.entered.release()
        self.go_on.wait(30)
        return self._embedder.embed_queries(texts)

    def embed_passages(self, texts: Sequence[str]) -> Float32:
        return self._embedder.embed_passages(texts)

    def readable(self, texts: Sequence[str]) -> Float32:
        self._note()
        return self._embedder.readable(texts)

    def query_tokens(self, texts: Sequence[str]) -> Int64:
        self._note()
        return self._embedder.query_tokens(texts)

    def _note(self) -> None:
        self.seen_on.add(threading.current_thread().name)


@pytest.fixture(scope="module")
def real(exported_encoder: Path) -> Embedder:
    return load_embedder(exported_encoder)


@pytest.fixture
def embedder(real: Embedder) -> Watched:
    return Watched(real)


def stage(embedder: Any, **options: Any) -> EncoderStage:
    defaults = {"cache": VectorCache(1 << 20), "batch_max_tokens": 8192, "max_waiting": 100}
    return EncoderStage(embedder, **(defaults | options))


def soon() -> float:
    return time.monotonic() + 30


async def held(made: EncoderStage, embedder: Watched, texts: Sequence[str]) -> list[Any]:
    """The first text on its way, the others waiting behind it."""
    embedder.go_on.clear()
    tasks = [asyncio.create_task(made.encode(texts[0], deadline=soon()))]
    assert await asyncio.to_thread(embedder.entered.acquire, timeout=30)
    for text in texts[1:]:
        tasks.append(asyncio.create_task(made.encode(text, deadline=soon())))
        while made.depth < len(tasks) - 1:
            await asyncio.sleep(0.001)
    return tasks


def test_texts_come_back_as_the_encoder_sees_them(embedder: Watched, real: Embedder) -> None:
    async def scenario() -> None:
        made = stage(embedder)
        texts = ["reset the lamp", "연차 휴가", "reset the lamp"]
        found = [(await made.encode(text, deadline=soon())).query for text in texts]
        for text, query in zip(texts, found, strict=True):
            assert query.vector == pytest.approx(real.embed_queries([text])[0], abs=1e-6)
            assert query.readable == real.readable([text])[0]
        assert await made.close()

    asyncio.run(scenario())


def test_what_was_asked_before_is_not_computed_again(embedder: Watched) -> None:
    async def scenario() -> None:
        cache = VectorCache(1 << 20)
        made = stage(embedder, cache=cache)
        first = await made.encode("a lamp", deadline=soon())
        again = await made.encode("a lamp", deadline=soon())
        assert again.query.vector.tolist() == first.query.vector.tolist()
        assert (again.run_ms, embedder.batches) == (0.0, [["a lamp"]])
        cache.clear()
        await made.encode("a lamp", deadline=soon())
        assert embedder.batches == [["a lamp"], ["a lamp"]]
        assert (cache.hits, cache.misses) == (1, 2)
        await made.close()

    asyncio.run(scenario())


def test_equal_texts_of_one_batch_are_computed_once(embedder: Watched) -> None:
    async def scenario() -> None:
        made = stage(embedder, cache=VectorCache(0))
        tasks = await held(made, embedder, ["a", "b", "c", "b"])
        embedder.go_on.set()
        await asyncio.gather(*tasks)
        assert embedder.batches == [["a"], ["b", "c"]]
        await made.close()

    asyncio.run(scenario())


def test_a_batch_keeps_to_its_tokens(embedder: Watched) -> None:
    seen: list[BatchStats] = []

    async def scenario() -> None:
        made = stage(embedder, batch_max_tokens=64, observe=seen.append)
        texts = [f"query number {n} about lamps" for n in range(9)]
        tasks = await held(made, embedder, texts)
        embedder.go_on.set()
        await asyncio.gather(*tasks)
        await made.close()

    asyncio.run(scenario())
    assert len(embedder.batches) > 2
    for batch, stats in zip(embedder.batches, seen, strict=True):
        assert int(embedder.query_tokens(batch).sum()) <= stats.cost <= 64


def test_more_tokens_than_a_batch_may_have_are_refused_before_they_wait(embedder: Watched) -> None:
    async def scenario() -> None:
        made = stage(embedder, batch_max_tokens=16)
        fits = "internationalization of documentation standardization"  # 70 bytes, few tokens
        await made.encode(fits, deadline=soon())
        with pytest.raises(InvalidRequest, match="shorten it"):
            await made.encode("one two three " * 20, deadline=soon())
        assert embedder.batches == [[fits]]
        await made.close()

    asyncio.run(scenario())


def test_nothing_is_tokenised_on_the_event_loop(embedder: Watched) -> None:
    async def scenario() -> None:
        made = stage(embedder, batch_max_tokens=300)
        await made.encode("한국어 문장입니다 " * 200, deadline=soon())
        await made.encode("short", deadline=soon())
        await made.close()

    asyncio.run(scenario())
    assert threading.current_thread().name not in embedder.seen_on


def test_a_full_queue_refuses(embedder: Watched) -> None:
    async def scenario() -> None:
        made = stage(embedder, max_waiting=1)
        tasks = await held(made, embedder, ["a", "b"])
        with pytest.raises(Overloaded):
            await made.encode("c", deadline=soon())
        embedder.go_on.set()
        await asyncio.gather(*tasks)
        await made.close()

    asyncio.run(scenario())


def test_equal_encoders_are_loaded_once_and_closed_by_their_last_user(real: Embedder) -> None:
    loads: list[str] = []

    def load() -> Embedder:
        loads.append(real.config.digest)
        return real

    async def scenario() -> None:
        pool = EncoderPool(lambda embedder, cache: stage(embedder, cache=cache), VectorCache(1024))
        first, second = (pool.take(real.config.digest, load) for _ in range(2))
        assert first is second
        assert len(loads) == 1
        assert await pool.give_back(first)
        await second.encode("still at work", deadline=soon())
        assert await pool.give_back(second)
        assert not second.healthy
        third = pool.take(real.config.digest, load)
        assert (third is first, len(loads)) == (False, 2)
        await pool.give_back(third)

    asyncio.run(scenario())


def test_an_encoder_that_cannot_be_loaded_leaves_no_trace(real: Embedder) -> None:
    pool = EncoderPool(lambda embedder, cache: stage(embedder, cache=cache), VectorCache(1024))

    def fail() -> Embedder:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        pool.take(real.config.digest, fail)
    taken = pool.take(real.config.digest, lambda: real)
    asyncio.run(pool.give_back(taken))


class Divided(Watched):
    """An encoder on the CPU whose threads can be divided; notes the share of each call."""

    device = "cpu"

    def __init__(self, embedder: Embedder, threads: int = 2) -> None:
        super().__init__(embedder)
        self.threads = threads
        self.asked_for: list[int] = []
        self.part: Watched | None = None

    def divided(self, callers: int) -> Embedder:
        self.asked_for.append(callers)
        self.part = Watched(self._embedder)
        return self.part


def test_what_follows_is_done_on_the_encoders_thread_for_those_of_one_batch(
    embedder: Watched, real: Embedder
) -> None:
    asked: list[tuple[str, list[int], int]] = []

    def doing(name: str) -> Any:
        def then(given: Sequence[int], encoded: Sequence[Any]) -> list[str]:
            asked.append((threading.current_thread().name, list(given), len(encoded)))
            return [f"{name} {number}" for number in given]

        return then

    first, second = doing("first"), doing("second")

    async def scenario() -> None:
        made = stage(embedder, cache=VectorCache(1 << 20))
        embedder.go_on.clear()
        blocked = asyncio.create_task(made.encode("blocks", deadline=soon()))
        assert await asyncio.to_thread(embedder.entered.acquire, timeout=30)
        tasks = [
            asyncio.create_task(made.encode_then(f"text {i}", i, then, deadline=soon()))
            for i, then in enumerate([first, second, first])
        ]
        while made.depth < 3:
            await asyncio.sleep(0.001)
        embedder.go_on.set()
        results = await asyncio.gather(*tasks)
        await blocked
        assert [result.result for result in results] == ["first 0", "second 1", "first 2"]
        expected = real.embed_queries(["text 2"])[0]
        assert results[2].encoding.query.vector == pytest.approx(expected, abs=1e-6)
        assert made.known("text 1") is not None  # kept for the next who asks
        await made.close()

    asyncio.run(scenario())
    assert [(given, count) for _, given, count in asked] == [([0, 2], 2), ([1], 1)]
    assert {name for name, *_ in asked} == {"encoder-0"}


def test_what_follows_and_fails_fails_its_own_query_alone(embedder: Watched) -> None:
    def then(given: Sequence[int], encoded: Sequence[Any]) -> Sequence[int]:
        if 1 in given:
            raise InvalidRequest("not this one")
        return given

    async def scenario() -> None:
        made = stage(embedder)
        tasks = await held(made, embedder, ["a"])
        tasks += [
            asyncio.create_task(made.encode_then(f"text {i}", i, then, deadline=soon()))
            for i in range(3)
        ]
        while made.depth < 3:
            await asyncio.sleep(0.001)
        embedder.go_on.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[1].result, found[3].result] == [0, 2]  # type: ignore[union-attr]
        assert isinstance(found[2], InvalidRequest)
        await made.close()

    asyncio.run(scenario())


def test_a_text_alone_has_all_threads_and_others_have_shares(real: Embedder) -> None:
    embedder = Divided(real)

    async def scenario() -> None:
        made = stage(embedder, cache=VectorCache(0))
        part = embedder.part
        assert part is not None
        await made.encode("alone", deadline=soon())
        assert embedder.entered.acquire(timeout=30)
        assert (embedder.batches, part.batches) == ([["alone"]], [])
        tasks = await held(made, embedder, ["first"])
        # The other worker takes what comes now: with a share of the threads, and at once.
        second = asyncio.create_task(made.encode("second", deadline=soon()))
        await asyncio.wait_for(second, 30)
        assert part.batches == [["second"]]
        embedder.go_on.set()
        await asyncio.gather(*tasks)
        assert await made.close()

    asyncio.run(scenario())
    assert embedder.asked_for == [2]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_one_thread_or_a_gpu_is_not_divided(real: Embedder, device: str) -> None:
    embedder = Divided(real, threads=1 if device == "cpu" else 8)
    embedder.device = device

    async def scenario() -> None:
        made = stage(embedder)
        assert made.on_processors == (device == "cpu")
        await made.encode("x", deadline=soon())
        await made.close()

    asyncio.run(scenario())
    assert embedder.asked_for == []
    assert embedder.batches == [["x"]]
