"""The query encoder as a stage of its own, shared by all engines whose encoder is the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from rag.devices import CPU
from rag.models.embedder import Divisible, Embedder, EncodedQuery, Placed, encode_queries
from rag.service.batching import Batcher, BatchStats
from rag.service.vector_cache import Key, VectorCache

PROMPT = "query"
SPECIAL_TOKENS = 8
"""More than any tokenizer puts around a text."""
WORKERS = 4
"""At most, of an encoder whose threads can be divided: more would contend for the interpreter's
lock.
"""
PART = 32
"""Texts of a batch that are gone on with, and answered, together."""
In = TypeVar("In")
Out = TypeVar("Out")

Then = Callable[[Sequence[In], Sequence[EncodedQuery]], Sequence[Out]]
"""What is done with queries as soon as they are encoded: a result for each, in order."""


class Encoding(NamedTuple):
    """One query encoded; `run_ms` is how long its batch took, 0 where the cache had it."""

    query: EncodedQuery
    run_ms: float


class Continued(NamedTuple, Generic[Out]):
    """One query encoded, and what was made of it."""

    encoding: Encoding
    result: Out


class _Text(NamedTuple):
    text: str
    tokens: int
    given: Any
    then: Then[Any, Any]


class EncoderStage:
    """A query encoder behind a batcher, with a cache of vectors before it.

    Texts are tokenised on the batcher's threads. At admission a text counts as many tokens as it
    has bytes, at most as many as the encoder reads: no batch holds more than `batch_max_tokens`.
    An encoder whose threads can be divided has a worker on each, and runs on all of them for a text
    that comes alone. `cache` may be shared by several stages. Lives on the event loop that first
    uses it.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        cache: VectorCache,
        batch_max_tokens: int,
        max_waiting: int,
        stalled_after_s: float = 120.0,
        observe: Callable[[BatchStats], None] | None = None,
    ) -> None:
        self.embedder = embedder
        self.digest = embedder.config.digest
        self.on_processors = isinstance(embedder, Placed) and embedder.device == CPU
        """Whether it takes the processors that a search needs: one that follows on its threads is
        then done sooner than one beside it.
        """
        self._cache = cache
        self._budget = batch_max_tokens
        self._overhead = len(embedder.config.prompts[PROMPT].encode()) + SPECIAL_TOKENS
        self._observe = observe
        self._own = threading.local()
        self._at_work = 0
        self._divided, workers = embedder, 1
        if self.on_processors and isinstance(embedder, Divisible) and embedder.threads > 1:
            workers = min(WORKERS, embedder.threads)
            self._divided = embedder.divided(workers)
        self._batcher: Batcher[_Text, Continued[Any]] = Batcher(
            self._run,
            cost=lambda item: item.tokens,
            budget=batch_max_tokens,
            max_waiting=max_waiting,
            name="encoder",
            workers=workers,
            stalled_after_s=stalled_after_s,
            observe=None if observe is None else self._tell,
        )

    @property
    def healthy(self) -> bool:
        return self._batcher.healthy

    @property
    def depth(self) -> int:
        """How many texts wait."""
        return self._batcher.depth

    def known(self, text: str) -> EncodedQuery | None:
        """`text` as a query, where the cache has it."""
        return self._cache.get(Key(self.digest, PROMPT, text))

    async def encode(self, text: str, *, deadline: float) -> Encoding:
        """`text` as a query; `deadline` is a `time.monotonic()` moment.

        Raises InvalidRequest for a text of more tokens than a batch may have, and what
        `Batcher.submit` raises.
        """
        known = self.known(text)
        return Encoding(known, 0.0) if known else await self.encode_new(text, deadline=deadline)

    async def encode_new(self, text: str, *, deadline: float) -> Encoding:
        """`encode`, whatever the cache has."""
        return (await self.encode_then(text, None, _nothing, deadline=deadline)).encoding

    async def encode_then(
        self, text: str, given: In, then: Then[In, Out], *, deadline: float
    ) -> Continued[Out]:
        """`text` encoded as by `encode_new`, and what `then` makes of that and of `given`.

        On the encoder's thread, at once: those of a batch that have the same `then` are given to it
        together, at most PART of them. Raises as `encode` does, and what `then` raises for a query
        alone.
        """
        tokens = await self._tokens(text)
        made: Continued[Out] = await self._batcher.submit(
            _Text(text, tokens, given, then), deadline=deadline
        )
        self._cache.put(Key(self.digest, PROMPT, text), made.encoding.query)
        return made

    async def close(self) -> bool:
        """Fails whoever still waits; True when no thread is left inside a library."""
        await self._batcher.close()
        return await asyncio.to_thread(self._batcher.join, 0.5)

    async def _tokens(self, text: str) -> int:
        """What `text` counts, at most."""
        bound = len(text.encode("utf-8", "surrogatepass")) + self._overhead
        tokens = min(bound, self.embedder.config.max_tokens)
        if tokens > self._budget:
            tokens = int((await asyncio.to_thread(self.embedder.query_tokens, [text]))[0])
        return tokens

    def _run(self, items: Sequence[_Text]) -> Iterator[list[Continued[Any]]]:
        """In parts: what is made of the first is answered while the rest is still in work, and the
        event loop never has a whole batch to answer at once.
        """
        began = time.perf_counter()
        try:
            with self._working() as alone:
                embedder = self.embedder if alone and len(items) == 1 else self._divided
                encoded = encode_queries(embedder, [item.text for item in items])
        finally:
            self._own.encoding_s = time.perf_counter() - began
        run_ms = self._own.encoding_s * 1e3
        for start in range(0, len(items), PART):
            part = slice(start, start + PART)
            made = zip(encoded[part], _continue(items[part], encoded[part]), strict=True)
            yield [Continued(Encoding(query, run_ms), result) for query, result in made]

    @contextmanager
    def _working(self) -> Iterator[bool]:
        """Counts the workers that encode; whether this one is alone. A count that is wrong for a
        moment costs a moment.
        """
        self._at_work += 1
        try:
            yield self._at_work == 1
        finally:
            self._at_work -= 1

    def _tell(self, stats: BatchStats) -> None:
        """A batch's stats, with the time of the encoder alone; on the thread that ran it."""
        if self._observe is not None:
            self._observe(stats._replace(run_s=self._own.encoding_s))


def _continue(items: Sequence[_Text], encoded: Sequence[EncodedQuery]) -> list[Any]:
    """What each item's `then` makes of it; those of equal ones are given to it together."""
    results: list[Any] = [None] * len(items)
    groups: dict[Then[Any, Any], list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item.then, []).append(place)
    for then, places in groups.items():
        made = then([items[i].given for i in places], [encoded[i] for i in places])
        for place, result in zip(places, made, strict=True):
            results[place] = result
    return results


def _nothing(given: Sequence[None], encoded: Sequence[EncodedQuery]) -> Sequence[None]:
    return given


class EncoderPool:
    """One stage for each encoder, by digest, however many engines use it. Thread-safe.

    `start` makes a stage of an embedder and of the `cache` that all of them share. A stage is
    closed when its last user gives it back.
    """

    def __init__(
        self, start: Callable[[Embedder, VectorCache], EncoderStage], cache: VectorCache
    ) -> None:
        self.cache = cache
        self._start = start
        self._lock = threading.Lock()
        self._stages: dict[str, tuple[EncoderStage, int]] = {}

    def take(self, digest: str, load: Callable[[], Embedder]) -> EncoderStage:
        """The stage of the encoder with that digest; `load` loads it where there is none yet.

        Blocks while it loads. Raises what `load` raises. Every stage taken is to be given back.
        """
        with self._lock:
            stage, users = self._stages.get(digest) or (self._start(load(), self.cache), 0)
            self._stages[digest] = stage, users + 1
            return stage

    async def give_back(self, stage: EncoderStage) -> bool:
        """True when no thread is left inside a library for it, or others still use it."""
        with self._lock:
            _, users = self._stages[stage.digest]
            if users > 1:
                self._stages[stage.digest] = stage, users - 1
                return True
            del self._stages[stage.digest]
        return await stage.close()
