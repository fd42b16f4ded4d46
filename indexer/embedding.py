"""Chunks to vectors: batches of like length, written where their rows are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from indexer.spool import Spool
from rag.models.embedder import Embedder
from rag.types import Float32

SLICE = 512
"""Chunks handed to the embedder at once; it makes its own batches of them by tokens."""


def embed_spool(
    spool: Spool, embedder: Embedder, vectors: Float32, advance: Callable[[int], None]
) -> None:
    """Fills `vectors`, float32 (len(spool), d), in row order.

    Chunks are embedded longest first, so that batches hold texts of like length (little padding)
    and a batch too large for the memory fails at once, not at the end.
    """
    order = spool.row_order
    row_of = np.empty(len(order), dtype=np.int64)
    row_of[order] = np.arange(len(order))
    by_length = np.argsort(-spool.tokens, kind="stable")
    for start in range(0, len(by_length), SLICE):
        part = by_length[start : start + SLICE]
        texts = [spool.indexed_text(position) for position in part.tolist()]
        vectors[row_of[part]] = embedder.embed_passages(texts)
        advance(len(texts))
