"""Texts of like length together, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rag.types import Int64


def length_batches(lengths: Int64, max_batch_tokens: int) -> Iterator[Int64]:
    """Positions into `lengths` (n,), each once, the longest first, batch by batch.

    A batch costs its size times its longest text, at most `max_batch_tokens`; a text longer than
    that goes alone. Equal lengths keep their order.
    """
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, max_batch_tokens // longest)
        yield order[start : start + size]
        start += size
