from __future__ import annotations

import gc
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


def test_what_is_kept_is_not_looked_at_until_memory_is_released() -> None:
    memory.spare_collector()
    node = Node()
    there = weakref.ref(node)
    memory.keep()
    del node
    gc.collect()
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
