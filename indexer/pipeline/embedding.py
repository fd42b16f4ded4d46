"""The encoder's own stage: it takes what has been chunked so far, longest first, while parsing
goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.pipeline.vectors import Digests, VectorStore
from indexer.stopping import Stop
from rag.errors import BuildStopped
from rag.models.batches import length_batches
from rag.models.embedder import Embedder

WINDOW = 8192
"""Chunks that are sorted by length together: a batch of so many differs by a hundredth."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """What embeds. `load` is called once, on the stage's own thread; `batch_tokens` bounds the
    padded tokens of a batch; `callers` batches run at once, each on a thread.
    """

    load: Callable[[], Embedder]
    batch_tokens: int
    callers: int


@dataclass(slots=True)
class _Texts:
    digests: Digests
    tokens: NDArray[np.int32]
    texts: list[str]


class EmbeddingStage:
    """Embeds each text once, into `store`. `put` waits while there is enough to do.

    The encoder never waits for a batch to fill: it takes all that is there, up to WINDOW chunks.
    A context manager: leaving it by an error abandons what is not embedded.
    """

    def __init__(
        self, encoder: Encoder, store: VectorStore, stop: Stop, advance: Callable[[int], None]
    ) -> None:
        self._encoder = encoder
        self._store = store
        self._stop = stop
        self._advance = advance
        self._seen: set[bytes] = set()
        self._queue: queue.Queue[_Texts | None] = queue.Queue()
        self._room = threading.Semaphore(2 * WINDOW)
        self._failed: list[BaseException] = []
        self._abandoned = self._ended = False
        self._thread = threading.Thread(target=self._work, name="embedding", daemon=True)

    def __enter__(self) -> EmbeddingStage:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._abandoned = kind is not None
        self._queue.put(None)
        while self._thread.is_alive():
            self._thread.join(0.2)  # short joins, so that signals reach the main thread
        self._store.sync()
        if kind is None:
            self._raise()

    def is_busy(self, wait_s: float) -> bool:
        """Whether texts are still to be embedded; waits up to `wait_s` for the end.

        Nothing may be `put` any more. Raises BuildStopped, and what the encoder raised.
        """
        if not self._ended:
            self._ended = True
            self._queue.put(None)
        self._thread.join(wait_s)
        self._stop.check()
        self._raise()
        return self._thread.is_alive()

    def put(self, digests: Digests, tokens: NDArray[np.int32], texts: Sequence[str]) -> int:
        """Queues the texts whose vectors are neither there nor on their way; returns how many."""
        rows = []
        for row, digest in enumerate(map(bytes, digests)):
            if not (digest in self._seen or digest in self._store):  # in this order
                self._seen.add(digest)
                rows.append(row)
        for start in range(0, len(rows), WINDOW):
            part = rows[start : start + WINDOW]
            for _ in part:
                self._wait_for_room()
            self._queue.put(_Texts(digests[part], tokens[part], [texts[row] for row in part]))
        return len(rows)

    def _wait_for_room(self) -> None:
        while not self._room.acquire(timeout=0.2):
            self._stop.check()
            self._raise()

    def _raise(self) -> None:
        if self._failed:
            raise self._failed[0]

    def _work(self) -> None:
        try:
            first = self._queue.get()
            if first is None:
                return
            embedder = self._encoder.load()
            with ThreadPoolExecutor(self._encoder.callers) as pool:
                for window in self._windows(first):
                    self._embed(embedder, window, pool)
        except BuildStopped:
            pass  # the thread that waits for this one says so
        except BaseException as error:  # noqa: BLE001 - raised again by `put` or on leaving
            self._failed.append(error)

    def _windows(self, first: _Texts) -> Iterator[_Texts]:
        parts, ended = [first], False
        while parts:
            while not ended and sum(len(part.texts) for part in parts) < WINDOW:
                try:
                    part = self._queue.get_nowait()
                except queue.Empty:
                    break
                ended = part is None
                parts += [part] if part is not None else []
            yield _joined(parts)
            parts = []
            if not ended:
                part = self._queue.get()
                ended = part is None
                parts = [part] if part is not None else []

    def _embed(self, embedder: Embedder, window: _Texts, pool: ThreadPoolExecutor) -> None:
        lengths = window.tokens.astype(np.int64)

        def embed(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            if self._abandoned:
                raise BuildStopped("abandoned")
            self._stop.check()
            return rows, embedder.embed_passages([window.texts[row] for row in rows.tolist()])

        for rows, vectors in pool.map(embed, length_batches(lengths, self._encoder.batch_tokens)):
            self._store.add(window.digests[rows], vectors)
            self._seen.difference_update(map(bytes, window.digests[rows]))
            self._room.release(len(rows))
            self._advance(len(rows))


def _joined(parts: Sequence[_Texts]) -> _Texts:
    return _Texts(
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        [text for part in parts for text in part.texts],
    )
