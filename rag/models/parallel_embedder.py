"""Several copies of one encoder at once: the GPUs of a machine, each with work tokenised ahead."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rag.devices import CPU
from rag.errors import ConfigurationError
from rag.models.embedder import Budgeted, Embedder
from rag.models.encoder import EncoderConfig
from rag.types import Float32, Int64

SLICE = 512
AHEAD = 2
"""Slices under way on each device: one computes while the next is tokenised."""


class ParallelEmbedder:
    """An `Embedder` over copies of the same encoder, by data parallelism.

    Texts are sorted by length, cut into slices of like length, and each slice goes to whichever
    copy is free. Raises ConfigurationError for no copies or copies of different encoders.
    """

    def __init__(self, embedders: Sequence[Embedder], *, slice_size: int = SLICE) -> None:
        if not embedders:
            raise ConfigurationError("there is no encoder to run in parallel; name a device")
        if len({embedder.config.digest for embedder in embedders}) > 1:
            raise ConfigurationError("encoders that run in parallel must be copies of one encoder")
        self._slice = slice_size
        self._copies = list(embedders)
        self._first = embedders[0]
        self._free: queue.SimpleQueue[Embedder] = queue.SimpleQueue()
        for embedder in [*embedders] * AHEAD:
            self._free.put(embedder)
        self._pool = ThreadPoolExecutor(AHEAD * len(embedders), thread_name_prefix="encoder")

    @property
    def device(self) -> str:
        """Where the first copy runs."""
        return self._first.device if isinstance(self._first, Budgeted) else CPU

    @property
    def max_batch_tokens(self) -> int:
        """What one copy takes at once: of the one that takes least."""
        return min(e.max_batch_tokens for e in self._copies if isinstance(e, Budgeted))

    @property
    def config(self) -> EncoderConfig:
        return self._first.config

    def embed_queries(self, texts: Sequence[str]) -> Float32:
        return self._embed(texts, "queries")

    def embed_passages(self, texts: Sequence[str]) -> Float32:
        return self._embed(texts, "passages")

    def readable(self, texts: Sequence[str]) -> Float32:
        return self._first.readable(texts)

    def query_tokens(self, texts: Sequence[str]) -> Int64:
        return self._first.query_tokens(texts)

    def _embed(self, texts: Sequence[str], role: str) -> Float32:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        parts = [order[i : i + self._slice] for i in range(0, len(order), self._slice)]
        vectors = np.empty((len(texts), self.config.dimension), dtype=np.float32)

        def run(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
            embedder = self._free.get()
            try:
                embed = getattr(embedder, f"embed_{role}")
                vectors[rows] = embed([texts[row] for row in rows.tolist()])
            finally:
                self._free.put(embedder)

        if len(parts) == 1:
            run(parts[0])
            return vectors
        for done in [self._pool.submit(run, part) for part in parts]:
            done.result()
        return vectors
