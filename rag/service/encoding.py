"""The query encoder as a stage of its own, shared by all engines whose encoder is the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rag.models.embedder import Embedder, EncodedQuery, encode_queries
from rag.service.batching import Batcher, BatchStats
from rag.service.vector_cache import Key, VectorCache

PROMPT = "query"
SPECIAL_TOKENS = 8
"""More than any tokenizer puts around a text."""


class Encoding(NamedTuple):
    """One query encoded; `run_ms` is how long its batch took, 0 where the cache had it."""

    query: EncodedQuery
    run_ms: float


class _Text(NamedTuple):
    text: str
    tokens: int


class EncoderStage:
    """A query encoder behind a batcher, with a cache of vectors before it.

    Texts are tokenised on the batcher's thread. At admission a text counts as many tokens as it
    has bytes, at most as many as the encoder reads: no batch holds more than `batch_max_tokens`.
    `cache` may be shared by several stages. Lives on the event loop that first uses it.
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
        self._cache = cache
        self._budget = batch_max_tokens
        self._overhead = len(embedder.config.prompts[PROMPT].encode()) + SPECIAL_TOKENS
        self._batcher: Batcher[_Text, Encoding] = Batcher(
            self._run,
            cost=lambda item: item.tokens,
            budget=batch_max_tokens,
            max_waiting=max_waiting,
            name="encoder",
            stalled_after_s=stalled_after_s,
            observe=observe,
        )

    @property
    def healthy(self) -> bool:
        return self._batcher.healthy

    @property
    def depth(self) -> int:
        """How many texts wait."""
        return self._batcher.depth

    async def encode(self, text: str, *, deadline: float) -> Encoding:
        """`text` as a query; `deadline` is a `time.monotonic()` moment.

        Raises InvalidRequest for a text of more tokens than a batch may have, and what
        `Batcher.submit` raises.
        """
        key = Key(self.digest, PROMPT, text)
        known = self._cache.get(key)
        if known is not None:
            return Encoding(known, 0.0)
        made = await self._batcher.submit(await self._sized(text), deadline=deadline)
        self._cache.put(key, made.query)
        return made

    async def close(self) -> bool:
        """Fails whoever still waits; True when no thread is left inside a library."""
        await self._batcher.close()
        return await asyncio.to_thread(self._batcher.join, 0.5)

    async def _sized(self, text: str) -> _Text:
        bound = len(text.encode("utf-8", "surrogatepass")) + self._overhead
        tokens = min(bound, self.embedder.config.max_tokens)
        if tokens > self._budget:
            tokens = int((await asyncio.to_thread(self.embedder.query_tokens, [text]))[0])
        return _Text(text, tokens)

    def _run(self, items: Sequence[_Text]) -> list[Encoding]:
        began = time.perf_counter()
        encoded = encode_queries(self.embedder, [item.text for item in items])
        run_ms = (time.perf_counter() - began) * 1e3
        return [Encoding(query, run_ms) for query in encoded]


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
