"""An external database reconciled with a bundle, and with `repair` made to hold what that holds.

Ids of both sides are read in ascending order and merged, so memory holds a page of them and a
batch of rows at a time, whatever there is in all. A repair writes and deletes as it goes, each row
for itself: one that was interrupted is finished by the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from indexer.audit.checks import Finding, sample_rows
from indexer.audit.merging import Pair, side_by_side
from indexer.audit.passage_rows import PassageRows, differences
from indexer.external.table import Row, Table
from indexer.progress import Progress

DATABASE = "database"
BATCH = 256
"""Rows that are read, compared and written at a time."""


@dataclass(slots=True)
class Count:
    """How many there are, and the first of them."""

    number: int = 0
    example: str = ""

    def add(self, example: str) -> None:
        if not self.number:
            self.example = example
        self.number += 1


@dataclass(slots=True)
class Tally:
    """What one pass found: rows in the database, those whose contents were compared, and what was
    wrong; `different` is by the field that differs. Then what a repair did.
    """

    expected: int
    rows: int = 0
    compared: int = 0
    missing: Count = field(default_factory=Count)
    left_over: Count = field(default_factory=Count)
    different: dict[str, Count] = field(default_factory=dict)
    written: int = 0
    deleted: int = 0

    def findings(self) -> Iterator[Finding]:
        """One for each kind of thing that is wrong, with how many and the first."""
        if self.missing.number:
            yield Finding(
                DATABASE, "", f"{self.missing.number} of {self.expected} passages are missing, as"
                f" {self.missing.example}",
            )  # fmt: skip
        if self.left_over.number:
            yield Finding(
                DATABASE, "", f"{self.left_over.number} rows are left over from other versions, as"
                f" {self.left_over.example}",
            )  # fmt: skip
        for name, count in sorted(self.different.items()):
            yield Finding(
                DATABASE, "", f"{count.number} of {self.compared} rows that were compared differ"
                f" in {name}, as {count.example}",
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found, what is still wrong after a repair (without one: the same), and counts."""

    findings: list[Finding]
    left: list[Finding]
    summary: dict[str, Any]
    repaired: list[str] = field(default_factory=list)


def check_database(
    passages: PassageRows,
    table: Table,
    *,
    sample: int,
    repair: bool,
    progress: Progress,
    batch: int = BATCH,
) -> Reconciled:
    """Compares `table` with `passages`: all ids, and the contents of `sample` rows, spread evenly.

    With `repair` the contents of all rows are compared. Rows that are missing or differ are
    written, those left over deleted; then everything is compared once more. Raises DatabaseError
    where a repair cannot go on; what it did until then stays, and running it again finishes it.
    """
    if repair:
        sample = len(passages)
    first = reconcile(passages, table, sample=sample, repair=repair, progress=progress, batch=batch)
    last, findings = first, list(first.findings())
    left = findings
    if repair:
        last = reconcile(
            passages, table, sample=sample, repair=False, progress=progress, batch=batch
        )
        left = [replace(f, problem=f"after the repair, {f.problem}") for f in last.findings()]
        findings += left
    summary = {
        "name": table.name, "rows": last.rows, "compared": last.compared,
        "written": first.written, "deleted": first.deleted,
    }  # fmt: skip
    done = f"{DATABASE} ({first.written:,} rows written, {first.deleted:,} deleted)"
    return Reconciled(findings, left, summary, [done] if first.written or first.deleted else [])


def reconcile(
    passages: PassageRows,
    table: Table,
    *,
    sample: int,
    repair: bool,
    progress: Progress,
    batch: int = BATCH,
) -> Tally:
    """One pass over both sides; with `repair`, what is wrong is mended as it is found."""
    work = _Pass(passages, table, sample, repair, batch)
    name = "repair database" if repair else "compare database"
    with progress.stage(name, len(passages)) as step:
        told = 0
        for pair in side_by_side(passages.ids(), table.ids()):
            work.see(pair)
            if pair.left is not None and pair.left - told >= batch:
                step.advance(pair.left - told)
                told = pair.left
        work.finish()
        step.advance(len(passages) - told)
    return work.tally


class _Pass:
    """Collects what is seen into batches, and does each when it is full."""

    def __init__(
        self, passages: PassageRows, table: Table, sample: int, repair: bool, batch: int
    ) -> None:
        self.tally = Tally(len(passages))
        self._passages = passages
        self._table = table
        self._repair = repair
        self._batch = batch
        self._all = sample >= len(passages)
        self._sample = frozenset(() if self._all else sample_rows(len(passages), sample).tolist())
        self._to_write: list[int] = []
        self._to_delete: list[str] = []
        self._to_compare: list[int] = []

    def see(self, pair: Pair) -> None:
        """The next id of either side."""
        self.tally.rows += pair.right is not None
        if pair.left is None:
            self.tally.left_over.add(pair.value)
            self._to_delete.append(pair.value)
        elif pair.right is None:
            self.tally.missing.add(pair.value)
            self._to_write.append(pair.left)
        elif self._all or pair.left in self._sample:
            self._to_compare.append(pair.left)
        waiting = (len(self._to_write), len(self._to_delete), len(self._to_compare))
        if max(waiting) >= self._batch:
            self.finish()

    def finish(self) -> None:
        """Does what has been collected."""
        if self._to_compare:
            self._compare(self._passages.rows(np.array(self._to_compare)))
        if self._repair and self._to_write:
            self._write(self._passages.rows(np.array(self._to_write)))
        if self._repair and self._to_delete:
            self._table.delete(self._to_delete)
            self.tally.deleted += len(self._to_delete)
        self._to_write, self._to_delete, self._to_compare = [], [], []

    def _compare(self, rows: list[Row]) -> None:
        held = self._table.rows([row.chunk_id for row in rows])
        self.tally.compared += len(rows)
        wrong = []
        for row in rows:
            found = held.get(row.chunk_id)
            if found is None:  # deleted by someone else since its id was read
                self.tally.missing.add(row.chunk_id)
            differing = [] if found is None else differences(row, found)
            for name in differing:
                self.tally.different.setdefault(name, Count()).add(row.chunk_id)
            if found is None or differing:
                wrong.append(row)
        if self._repair and wrong:
            self._write(wrong)

    def _write(self, rows: list[Row]) -> None:
        self._table.write(rows)
        self.tally.written += len(rows)
