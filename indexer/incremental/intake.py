"""What a build has so far: the documents of its spool that count, and those that failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from indexer.incremental.plan import Change, Plan
from indexer.incremental.previous import Previous
from indexer.incremental.state import ObjectState
from indexer.pipeline.reading import Work
from indexer.pipeline.records import Failure, Mark, ParsedBatch, RawDocument
from indexer.pipeline.spool import Spool
from indexer.source import Source

Kept = tuple[ObjectState, Mark]
"""A document of the version before, and the mark that its object has now."""


class Intake:
    """Decides, object by object, what must be read, and takes in what becomes of it.

    `wanted` are the numbers of the spool's documents that belong to the bundle, `failures` the
    documents that cannot. Is a `Knowledge` (see reading.py).
    """

    def __init__(self, source: Source, spool: Spool, previous: Previous | None) -> None:
        self.wanted: list[int] = []
        self.failures: list[Failure] = []
        self._source = source
        self._spool = spool
        self._previous = previous
        self._by_mark: dict[Mark, list[int | Failure]] = {}
        self._by_content: dict[str, int] = {}
        self._before: dict[str, ObjectState] = {}

    def restore(self) -> Iterator[ParsedBatch]:
        """Takes up the spool of earlier runs, batch by batch: known, but not wanted yet."""
        for batch in self._spool.restore():
            first = self._spool.documents - len(batch.documents)
            for number, entry in enumerate(batch.documents, start=first):
                self._by_mark.setdefault(entry.mark, []).append(number)
                self._by_content[entry.content] = number
            for failure in batch.failures:
                if failure.lasting:
                    self._by_mark.setdefault(failure.mark, []).append(failure)
            yield batch

    def add(self, payload: bytes) -> ParsedBatch:
        """Spools one more batch, all of it wanted."""
        batch = self._spool.add(payload)
        first = self._spool.documents - len(batch.documents)
        self.wanted.extend(range(first, self._spool.documents))
        self.failures.extend(batch.failures)
        return batch

    def work(self, plan: Plan) -> Iterator[Work[Kept]]:
        """The objects of `plan` that are not in the spool already."""
        before = iter(self._previous.objects() if self._previous is not None else ())
        states: tuple[str, Sequence[ObjectState]] = ("", ())
        for change, item in plan.items():
            mark = self._source.mark(item)
            corpus = self._source.is_corpus(item)
            if not corpus and mark in self._by_mark:
                for found in self._by_mark[mark]:
                    self._want(found)
                continue
            while states[0] < item.key:
                states = next(before, ("\U0010ffff", ()))
            rows = states[1] if states[0] == item.key else ()
            if change is Change.UNCHANGED and rows:
                yield Work(item, [(row, mark) for row in rows])
                continue
            self._before.update((row.content, row) for row in rows if row.content)
            yield Work(item)

    def find(self, raw: RawDocument, content: str) -> Kept | bool | None:
        number = self._by_content.get(content)
        if number is not None:
            self._want(number)
            return True
        state = self._before.pop(content, None)
        if state is None or (state.reason is not None and not state.lasting):
            return None
        return state, raw.mark

    def batch(self, kept: Sequence[Kept]) -> bytes:
        if self._previous is None:
            raise RuntimeError("there is no version before to keep documents of")
        return self._previous.payload(kept)

    def _want(self, found: int | Failure) -> None:
        if isinstance(found, Failure):
            self.failures.append(found)
        else:
            self.wanted.append(found)
