from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from rag.service import memory


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector_as_it_was() -> object:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def collecting_once() -> None:
    """One regular collection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "COLLECT_EVERY_S", 0.0)
        collecting = asyncio.create_task(memory.collect_regularly())
        await asyncio.sleep(0.05)
        collecting.cancel()


def test_what_is_kept_is_not_looked_at_until_memory_is_released() -> None:
    memory.spare_collector()
    node = Node()
    there = weakref.ref(node)
    memory.keep()
    del node
    gc.collect()
    assert there() is not None
    asyncio.run(collecting_once())
    assert there() is not None
    memory.release()
    assert there() is None


def test_cycles_that_requests_leave_are_still_collected() -> None:
    memory.spare_collector()
    gc.collect()
    first = weakref.ref(Node())
    made = 0
    while first() is not None and made < 2 * memory.YOUNG_OBJECTS:
        Node()
        made += 1
    assert first() is None


def test_what_nobody_uses_is_freed_before_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "COLLECT_EVERY_S", 0.01)

    async def scenario() -> None:
        memory.spare_collector()
        there = weakref.ref(Node())
        collecting = asyncio.create_task(memory.collect_regularly())
        end = time.monotonic() + 30
        while there() is not None and time.monotonic() < end:
            await asyncio.sleep(0.01)
        collecting.cancel()
        assert there() is None

    asyncio.run(scenario())
