"""All vectors of a build, block by block, so that memory holds one of them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

from rag.types import Float32

ROWS_AT_ONCE = 65_536


def blocks(vectors: Float32) -> Iterator[tuple[int, Float32]]:
    """The rows of (n, d) in order, ROWS_AT_ONCE at a time, contiguous, each block with the number
    of its first row.

    Of a file that is mapped, what has been gone through is let go of: it would count as this
    process's memory for as long as the system has room for it.
    """
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield start, np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE])
        if isinstance(vectors, np.memmap):
            vectors._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
