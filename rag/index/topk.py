"""The one tie rule of every search: descending score, then ascending row."""

from __future__ import annotations

import numpy as np

from rag.errors import ModelFailure
from rag.types import NO_ROW, Float32, Hits, Int64, RowMask


def best(rows: Int64, scores: Float32) -> Int64:
    """Positions of `rows` from best to worst: descending score, ties by ascending row."""
    return np.lexsort((rows, -scores))


def no_hits(queries: int, k: int) -> Hits:
    """Hits of depth k that hold only padding, ready to be filled."""
    return Hits(
        np.full((queries, k), NO_ROW, dtype=np.int64),
        np.full((queries, k), -np.inf, dtype=np.float32),
    )


def check_depth(k: int) -> None:
    """Raises ValueError for a depth that is no depth."""
    if k < 0:
        raise ValueError(f"k must be 0 or more, got {k}")


def check_mask(allowed: RowMask | None, rows: int) -> None:
    """Raises ModelFailure unless `allowed` is None or bool (rows,)."""
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != (rows,)):
        raise ModelFailure(
            f"the row mask is {allowed.dtype} {allowed.shape}, the index needs bool ({rows},);"
            " it belongs to another version"
        )
