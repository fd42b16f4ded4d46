"""Every submit ends, nothing is computed for those who left, and no item starves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelFailure,
    NotReady,
    Overloaded,
    RequestError,
)
from rag.service.batching import Batcher, BatchStats


class Gate:
    """A function to batch that records its batches and stands still until it is opened."""

    def __init__(self, *, opened: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        if opened:
            self.open.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.release()
        self.open.wait(30)
        return [item * 10 for item in items]

    async def busy(self) -> None:
        """Until the function has been entered once more."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


@contextlib.asynccontextmanager
async def batcher(
    run: Callable[[Sequence[int]], Sequence[Any]], **options: Any
) -> AsyncIterator[Batcher[int, Any]]:
    defaults: dict[str, Any] = {
        "cost": lambda item: 1,
        "budget": 8,
        "max_waiting": 100,
        "name": "test",
    }
    made: Batcher[int, Any] = Batcher(lambda items: [run(items)], **(defaults | options))
    try:
        yield made
    finally:
        await made.close()


def soon() -> float:
    return time.monotonic() + 30


async def queued(made: Batcher[int, Any], count: int) -> None:
    while made.depth != count:
        await asyncio.sleep(0.001)


def test_an_idle_worker_starts_at_once_and_a_busy_one_accumulates() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate, budget=3) as made:
            first = asyncio.create_task(made.submit(1, deadline=soon()))
            await gate.busy()
            rest = [asyncio.create_task(made.submit(n, deadline=soon())) for n in (2, 3, 4, 5)]
            await queued(made, 4)
            gate.open.set()
            assert await asyncio.gather(first, *rest) == [10, 20, 30, 40, 50]
            assert gate.batches == [[1], [2, 3, 4], [5]]

    asyncio.run(scenario())


def test_workers_share_what_waits() -> None:
    """One that becomes free takes no more than its share of what waits and runs: the other will be
    free before it has done everything.
    """
    go_on = {number: threading.Event() for number in range(1, 9)}
    batches: list[list[int]] = []
    entered = threading.Semaphore(0)

    def run(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        entered.release()
        go_on[items[0]].wait(30)
        return list(items)

    async def scenario() -> None:
        async with batcher(run, workers=2, budget=100) as made:
            tasks = []
            for number in (1, 2):
                tasks.append(asyncio.create_task(made.submit(number, deadline=soon())))
                assert await asyncio.to_thread(entered.acquire, timeout=30)
            tasks += [asyncio.create_task(made.submit(n, deadline=soon())) for n in range(3, 9)]
            await queued(made, 6)
            for first in (1, 2):
                go_on[first].set()
                assert await asyncio.to_thread(entered.acquire, timeout=30)
            for event in go_on.values():
                event.set()
            assert await asyncio.gather(*tasks) == list(range(1, 9))

    asyncio.run(scenario())
    assert batches == [[1], [2], [3, 4, 5, 6], [7, 8]]


def test_batches_respect_the_budget_in_cost_and_the_order_of_arrival() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate, budget=10, cost=lambda item: item) as made:
            first = asyncio.create_task(made.submit(1, deadline=soon()))
            await gate.busy()
            rest = [asyncio.create_task(made.submit(n, deadline=soon())) for n in (6, 4, 9, 2, 1)]
            await queued(made, 5)
            gate.open.set()
            await asyncio.gather(first, *rest)
            assert gate.batches == [[1], [6, 4], [9], [2, 1]]

    asyncio.run(scenario())


def test_an_item_dearer_than_the_budget_is_refused_at_admission() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with batcher(gate, budget=10, cost=lambda item: item) as made:
            with pytest.raises(InvalidRequest, match="11 tokens"):
                await made.submit(11, deadline=soon())
            assert gate.batches == []

    asyncio.run(scenario())


def test_a_full_queue_says_so_at_once_and_when_to_come_back() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate, max_waiting=2) as made:
            held = [asyncio.create_task(made.submit(0, deadline=soon()))]
            await gate.busy()
            held += [asyncio.create_task(made.submit(n, deadline=soon())) for n in (1, 2)]
            await queued(made, 2)
            with pytest.raises(Overloaded) as refused:
                await made.submit(3, deadline=soon())
            assert refused.value.retry_after_s >= 1
            gate.open.set()
            assert await asyncio.gather(*held) == [0, 10, 20]

    asyncio.run(scenario())


def test_nothing_is_computed_for_those_who_left_or_are_late() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate) as made:
            first = asyncio.create_task(made.submit(1, deadline=soon()))
            await gate.busy()
            left = asyncio.create_task(made.submit(2, deadline=soon()))
            late = asyncio.create_task(made.submit(3, deadline=time.monotonic() + 0.05))
            stays = asyncio.create_task(made.submit(4, deadline=soon()))
            await queued(made, 3)
            left.cancel()
            with pytest.raises(DeadlineExceeded):
                await late
            assert made.depth == 1  # those who left free their places
            gate.open.set()
            assert await asyncio.gather(first, stays) == [10, 40]
            assert gate.batches == [[1], [4]]

    asyncio.run(scenario())


def test_those_who_left_are_skipped_even_before_the_loop_has_noticed() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate) as made:
            first = asyncio.create_task(made.submit(1, deadline=soon()))
            await gate.busy()
            left = asyncio.create_task(made.submit(2, deadline=soon()))
            late = asyncio.create_task(made.submit(3, deadline=time.monotonic() + 0.05))
            stays = asyncio.create_task(made.submit(4, deadline=soon()))
            await queued(made, 3)
            left.cancel()
            time.sleep(0.1)
            gate.open.set()
            assert gate.entered.acquire(timeout=30)
            assert gate.batches == [[1], [4]]
            assert await asyncio.gather(first, stays) == [10, 40]
            with pytest.raises(DeadlineExceeded):
                await late

    asyncio.run(scenario())


def test_a_deadline_ends_the_wait_for_a_run_that_hangs() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate) as made:
            with pytest.raises(DeadlineExceeded):
                await made.submit(1, deadline=time.monotonic() + 0.05)
            gate.open.set()
            assert await made.submit(2, deadline=soon()) == 20

    asyncio.run(scenario())


def test_one_poison_item_does_not_fail_its_neighbours() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)

        def run(items: Sequence[int]) -> list[int]:
            results = gate(items)
            if 13 in items:
                raise ValueError("secret detail")
            return results

        async with batcher(run) as made:
            first = asyncio.create_task(made.submit(1, deadline=soon()))
            await gate.busy()
            rest = [asyncio.create_task(made.submit(n, deadline=soon())) for n in (2, 13, 4)]
            await queued(made, 3)
            gate.open.set()
            ends = await asyncio.gather(first, *rest, return_exceptions=True)
            assert [ends[0], ends[1], ends[3]] == [10, 20, 40]
            assert isinstance(ends[2], ModelFailure)
            assert isinstance(ends[2].__cause__, ValueError)
            assert "secret" not in str(ends[2])
            assert gate.batches == [[1], [2, 13, 4], [2], [13], [4]]

    asyncio.run(scenario())


def test_a_request_error_passes_through_unchanged() -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise InvalidRequest("no such field")

    async def scenario() -> None:
        async with batcher(run) as made:
            with pytest.raises(InvalidRequest, match="no such field"):
                await made.submit(1, deadline=soon())

    asyncio.run(scenario())


@pytest.mark.parametrize("results", [[], [1, 2, 3]])
def test_a_wrong_number_of_results_fails_the_whole_batch(results: list[int]) -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)

        def run(items: Sequence[int]) -> list[int]:
            right = gate(items)
            return right if items[0] == 0 else results

        async with batcher(run) as made:
            first = asyncio.create_task(made.submit(0, deadline=soon()))
            await gate.busy()
            rest = [asyncio.create_task(made.submit(n, deadline=soon())) for n in (1, 2)]
            await queued(made, 2)
            gate.open.set()
            assert await first == 0
            for end in await asyncio.gather(*rest, return_exceptions=True):
                assert isinstance(end, ModelFailure)
            assert len(gate.batches) == 2  # not tried again one by one

    asyncio.run(scenario())


def test_parts_are_handed_out_as_they_come_and_a_failure_fails_the_rest_alone() -> None:
    go_on, tried = threading.Event(), []

    def run(items: Sequence[int]) -> Iterator[list[int]]:
        tried.append(list(items))
        yield [item * 10 for item in items[:2]]
        if len(items) > 2:
            assert go_on.wait(30)
            raise ValueError("the third cannot be computed with others")

    async def scenario() -> None:
        blocking = Gate(opened=False)

        def first_then_run(items: Sequence[int]) -> Iterable[list[int]]:
            return [blocking(items)] if items == [0] else run(items)

        made: Batcher[int, int] = Batcher(
            first_then_run, cost=lambda item: 1, budget=8, max_waiting=8, name="test"
        )
        asked = [asyncio.create_task(made.submit(0, deadline=soon()))]
        await blocking.busy()
        asked += [asyncio.create_task(made.submit(n, deadline=soon())) for n in (1, 2, 3)]
        await queued(made, 3)
        blocking.open.set()
        assert await asyncio.gather(*asked[:3]) == [0, 10, 20]
        assert not asked[3].done()
        go_on.set()
        assert await asked[3] == 30
        assert tried == [[1, 2, 3], [3]]
        await made.close()

    asyncio.run(scenario())


def test_a_worker_that_dies_answers_its_callers_and_is_started_again() -> None:
    gate = Gate(opened=False)

    def run(items: Sequence[int]) -> list[int]:
        results = gate(items)
        if 13 in items:
            raise SystemExit(3)
        return results

    async def scenario() -> None:
        async with batcher(run, budget=1) as made:
            dies = asyncio.create_task(made.submit(13, deadline=soon()))
            await gate.busy()
            waits = asyncio.create_task(made.submit(2, deadline=soon()))
            await queued(made, 1)
            gate.open.set()
            with pytest.raises(ModelFailure):
                await dies
            assert await waits == 20
            with pytest.raises(ModelFailure):
                await made.submit(13, deadline=soon())
            assert await made.submit(3, deadline=soon()) == 30
            assert made.healthy

    asyncio.run(scenario())


def test_unhealthy_when_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise SystemExit(3)

    async def scenario() -> None:
        async with batcher(run) as made:
            assert made.healthy

            def no_more(thread: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            with monkeypatch.context() as patch:
                with pytest.raises(ModelFailure):
                    await made.submit(1, deadline=soon())
                patch.setattr(threading.Thread, "start", no_more)
                while made.healthy:
                    await asyncio.sleep(0.001)
                with pytest.raises(ModelFailure, match="cannot start"):
                    await made.submit(2, deadline=soon())
            assert made.healthy

    asyncio.run(scenario())


def test_unhealthy_while_a_run_is_stalled() -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate, stalled_after_s=0.05) as made:
            task = asyncio.create_task(made.submit(1, deadline=soon()))
            await gate.busy()
            while made.healthy:
                await asyncio.sleep(0.01)
            gate.open.set()
            await task
            while not made.healthy:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize("drain_s", [0.0, 30.0])
def test_close_drains_or_fails_every_waiter(drain_s: float) -> None:
    async def scenario() -> None:
        gate = Gate(opened=False)
        async with batcher(gate, budget=1) as made:
            tasks = [asyncio.create_task(made.submit(n, deadline=soon())) for n in range(3)]
            await gate.busy()
            await queued(made, 2)
            closing = asyncio.create_task(made.close(drain_s=drain_s))
            await asyncio.sleep(0)
            with pytest.raises(NotReady):
                await made.submit(9, deadline=soon())
            if drain_s:
                gate.open.set()
            await closing
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            if drain_s:
                assert ends == [0, 10, 20]
            else:
                assert all(isinstance(end, NotReady) for end in ends)
            gate.open.set()
            assert await asyncio.to_thread(made.join, 30)
            assert not made.healthy

    asyncio.run(scenario())


def test_stats_tell_items_cost_and_waits() -> None:
    seen: list[BatchStats] = []

    async def scenario() -> None:
        async with batcher(Gate(), cost=lambda item: item, observe=seen.append) as made:
            await made.submit(5, deadline=soon())
            await made.close(drain_s=30)

    asyncio.run(scenario())
    assert [(stats.items, stats.cost, len(stats.waits_s)) for stats in seen] == [(1, 5, 1)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    budget=st.integers(1, 12),
    max_waiting=st.integers(1, 30),
    workers=st.integers(1, 3),
)
def test_every_submit_ends(
    seed: int, count: int, budget: int, max_waiting: int, workers: int
) -> None:
    """Random loads with failures, deaths, cancellations and short deadlines: all of them end, and
    every result is its own caller's."""
    chance = random.Random(seed)
    oversized: list[int] = []

    def run(items: Sequence[int]) -> list[int]:
        if sum(item % 5 for item in items) > budget:
            oversized.extend(items)
        roll = chance.random()
        if roll < 0.03:
            raise SystemExit
        if roll < 0.15:
            raise ValueError
        if roll < 0.2:
            return []
        time.sleep(chance.random() * 0.002)
        return [item * 10 for item in items]

    async def one(made: Batcher[int, Any], item: int) -> None:
        wait = chance.choice([0.001, 0.01, 20.0])
        task = asyncio.create_task(made.submit(item, deadline=time.monotonic() + wait))
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() * 0.002)
            task.cancel()
        with contextlib.suppress(RequestError, asyncio.CancelledError):
            assert await task == item * 10

    async def scenario() -> None:
        options = {"budget": budget, "max_waiting": max_waiting, "workers": workers}
        async with batcher(run, cost=lambda item: item % 5, **options) as made:
            async with asyncio.timeout(15):
                await asyncio.gather(*(one(made, item) for item in range(count)))
            assert made.depth == 0

    asyncio.run(scenario())
    assert oversized == []


def test_an_idle_worker_holds_nothing_of_its_last_batch() -> None:
    """What items refer to, a bundle say, is gone as soon as nobody else has it."""

    class Item:
        pass

    async def scenario() -> None:
        made: Batcher[Item, int] = Batcher(
            lambda items: [[1] * len(items)],
            cost=lambda item: 1, budget=8, max_waiting=8, name="test",
        )  # fmt: skip
        item = Item()
        there = weakref.ref(item)
        assert await made.submit(item, deadline=soon()) == 1
        del item
        end = time.monotonic() + 10
        while there() is not None and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert there() is None
        await made.close()

    asyncio.run(scenario())


def test_a_closed_batcher_lets_go_of_what_it_ran() -> None:
    """Its owner is gone with the last who knows it, without the collector of cycles."""

    class Owner:
        def __init__(self) -> None:
            self.batcher: Batcher[int, int] = Batcher(
                self.run, cost=lambda item: 1, budget=8, max_waiting=8, name="test"
            )

        def run(self, items: Sequence[int]) -> list[list[int]]:
            return [[item * 10 for item in items]]

    async def scenario() -> None:
        owner = Owner()
        there = weakref.ref(owner)
        assert await owner.batcher.submit(1, deadline=soon()) == 10
        await owner.batcher.close()
        assert await asyncio.to_thread(owner.batcher.join, 30)
        del owner
        assert there() is None

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
