"""What is to be parsed, read ahead from the source: batches under a cap of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, Protocol, TypeVar

from indexer.pipeline.records import Failure, RawDocument, empty_batch, encode
from indexer.pipeline.stages import content_digest
from indexer.source import Item, Source
from indexer.source.corpus import Row
from rag.errors import DocumentError, StorageError

MAX_DOCUMENTS = 64
MAX_KEPT = 256
MAX_BYTES = 1 << 20
"""A batch is a worker's next task: so many documents, or so many bytes of them, make one."""
_THREADS = 16

T = TypeVar("T")


class Work(NamedTuple, Generic[T]):
    """One object: to be read, or, where `kept` is not None, its documents as they are known."""

    item: Item
    kept: Sequence[T] | None = None


class Knowledge(Protocol[T]):
    """What need not be parsed. `find` says of a document, by its content digest, what stands for
    it: a T; True where it is in the spool already; None where it must be parsed. `batch` makes an
    encoded batch of several T.
    """

    def find(self, raw: RawDocument, content: str) -> T | bool | None: ...

    def batch(self, kept: Sequence[T]) -> bytes: ...


def read_batches(
    source: Source, work: Iterable[Work[T]], knowledge: Knowledge[T], *, ahead: int
) -> Iterator[Sequence[RawDocument] | bytes]:
    """The documents of `work` in batches, read on several threads, at most `ahead` bytes of them
    beyond what was asked for.

    What is known already, and what cannot be read, comes as an encoded batch instead.
    """
    kept: list[T] = []
    batch: list[RawDocument] = []
    size = 0
    for found in _documents(source, work, knowledge, ahead):
        if isinstance(found, Failure):
            yield encode(empty_batch([found]))
        elif isinstance(found, RawDocument):
            if batch and (len(batch) >= MAX_DOCUMENTS or size + len(found.data) > MAX_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(found)
            size += len(found.data)
        else:
            kept.append(found)
            if len(kept) == MAX_KEPT:
                yield knowledge.batch(kept)
                kept = []
    if kept:
        yield knowledge.batch(kept)
    if batch:
        yield batch


def _documents(
    source: Source, work: Iterable[Work[T]], knowledge: Knowledge[T], ahead: int
) -> Iterator[RawDocument | Failure | T]:
    for found in _read(source, work, ahead):
        if not isinstance(found, RawDocument):
            yield found
            continue
        known = knowledge.find(found, content_digest(found))
        if known is None or known is False:
            yield found
        elif known is not True:
            yield known


def _read(
    source: Source, work: Iterable[Work[T]], ahead: int
) -> Iterator[RawDocument | Failure | T]:
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[tuple[Item, Future[RawDocument] | None]] = deque()
        held = 0
        try:
            for item, kept in work:
                if kept is not None:
                    yield from kept
                    continue
                while waiting and (held + item.size > ahead or len(waiting) >= 4 * _THREADS):
                    held -= waiting[0][0].size
                    yield from _finished(source, *waiting.popleft())
                corpus = source.is_corpus(item)
                waiting.append((item, None if corpus else pool.submit(source.read, item)))
                held += item.size
            for item, future in waiting:
                yield from _finished(source, item, future)
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _finished(
    source: Source, item: Item, future: Future[RawDocument] | None
) -> Iterator[RawDocument | Failure]:
    mark = source.mark(item)
    try:
        if future is not None:
            yield future.result()
            return
        for row in source.rows(item):
            if isinstance(row, Row):
                yield Failure(mark, "", row.id, row.problem or "", True)
            else:
                yield row
    except StorageError as error:
        yield Failure(mark, "", item.key, f"it cannot be read: {error}", False)
    except DocumentError as error:
        yield Failure(mark, "", item.key, str(error), True)
