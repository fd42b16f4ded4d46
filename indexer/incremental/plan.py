"""What a build has to do: the source's listing now, against the objects of the version before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from indexer.incremental.state import ObjectState
from indexer.pipeline.records import Mark
from indexer.source import Item, Source
from rag.storage import ObjectInfo

_NAMES = 1000


class Change(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    RETRIED = "retried"
    """Unchanged, and not indexed before for a reason that may be gone."""


@dataclass(slots=True)
class Plan:
    """The objects to go over, on disk in the order of their keys; in memory only how many there
    are of each kind, and the first thousand names.
    """

    path: Path
    counts: dict[Change, int] = field(default_factory=lambda: dict.fromkeys(Change, 0))
    names: dict[Change, list[str]] = field(default_factory=lambda: {c: [] for c in Change})

    @property
    def is_empty(self) -> bool:
        """Whether every object is as it was."""
        return all(not n for change, n in self.counts.items() if change is not Change.UNCHANGED)

    @property
    def to_read(self) -> int:
        """How many objects are new or not as they were."""
        counts = self.counts
        return counts[Change.ADDED] + counts[Change.CHANGED] + counts[Change.RETRIED]

    @property
    def total(self) -> int:
        """How many objects the source has."""
        return self.to_read + self.counts[Change.UNCHANGED]

    def items(self) -> Iterator[tuple[Change, Item]]:
        """Every object that is there now."""
        with self.path.open("rb") as file:
            for line in file:
                change, info, sidecar = orjson.loads(line)
                found = None if sidecar is None else ObjectInfo(*sidecar)
                yield Change(change), Item(ObjectInfo(*info), found)

    def count(self, change: Change, key: str) -> None:
        self.counts[change] += 1
        if len(self.names[change]) < _NAMES:
            self.names[change].append(key)


def make_plan(
    source: Source, before: Iterable[tuple[str, list[ObjectState]]] | None, path: Path
) -> Plan:
    """Lists `source` and compares it with the objects `before`, both ascending by key.

    The plan's lines are written to `path`. Raises ConfigurationError, StorageError.
    """
    plan = Plan(path)
    old = iter(before or ())
    last: tuple[str, list[ObjectState]] | None = next(old, None)
    with path.open("wb") as file:
        for item in source.items():
            while last is not None and last[0] < item.key:
                plan.count(Change.DELETED, last[0])
                last = next(old, None)
            rows: list[ObjectState] = []
            if last is not None and last[0] == item.key:
                rows = last[1]
                last = next(old, None)
            change = _change(source.mark(item), rows)
            plan.count(change, item.key)
            line: list[Any] = [change, item.info, item.sidecar]
            file.write(orjson.dumps(line, default=list) + b"\n")
    while last is not None:
        plan.count(Change.DELETED, last[0])
        last = next(old, None)
    return plan


def _change(mark: Mark, rows: list[ObjectState]) -> Change:
    if not rows:
        return Change.ADDED
    if any(row.mark != mark for row in rows):
        return Change.CHANGED
    if any(row.reason is not None and not row.lasting for row in rows):
        return Change.RETRIED
    return Change.UNCHANGED
