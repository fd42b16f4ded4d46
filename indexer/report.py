"""What a build says when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.pipeline.records import Failure
from rag.errors import BuildError

REPORT = "report.json"
"""The bundle's file of what was left out."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that is not in the bundle, and why."""

    doc_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `passed_over` counts the source's objects that are no documents, by why;
    `bytes` is the bundle's size; `seconds` is the time of each stage; `changes` how many objects
    were added, changed, deleted and so on since the version before; `embedded` how many texts the
    encoder was given. `unchanged` is True where nothing differs from the version before, which was
    taken as it is.
    """

    version: str
    folder: Path
    documents: int
    chunks: int
    skipped: tuple[Skipped, ...]
    passed_over: dict[str, int]
    bytes: int
    seconds: dict[str, float]
    changes: dict[str, int] = field(default_factory=dict)
    embedded: int = 0
    unchanged: bool = False


class Clock:
    """The time of each stage, from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def skipped(failures: Iterable[Failure]) -> tuple[Skipped, ...]:
    """The failures in the order of their documents."""
    return tuple(sorted((Skipped(f.doc_id, f.reason) for f in failures), key=_order))


def refuse_skipped(lines: Sequence[Skipped], total: int) -> None:
    """Raises BuildError if any of `total` documents is skipped: what --strict asks for."""
    if lines:
        raise BuildError(
            f"{len(lines)} of {total} documents cannot be indexed and --strict was given;"
            f" the first: {lines[0].doc_id}: {lines[0].reason}"
        )


def _order(line: Skipped) -> tuple[str, str]:
    return line.doc_id, line.reason
