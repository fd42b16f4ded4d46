"""Compiled loops that put counted terms in order; see rag/index/kernels.py for how."""

from __future__ import annotations

from typing import Any

from numba import types

from rag.index.kernels import kernel, readonly
from rag.types import Int64


@kernel(
    readonly(types.int32),
    readonly(types.int32),
    readonly(types.int32),
    readonly(types.int64),
    types.int32[::1],
    types.int32[::1],
)
def place_postings(
    terms: Any, counts: Any, sizes: Any, heads: Int64, terms_out: Any, counts_out: Any
) -> None:
    """Copies the postings of each passage, `sizes[i]` of them one after the other, to heads[i];
    where that is negative, nowhere.
    """
    position = 0
    for i in range(sizes.size):
        at = heads[i]
        for _ in range(sizes[i]):
            if at >= 0:
                terms_out[at] = terms[position]
                counts_out[at] = counts[position]
                at += 1
            position += 1


@kernel(readonly(types.int32), readonly(types.int64), types.int32[::1], types.int32[::1])
def rank_postings(rank: Any, indptr: Int64, terms: Any, counts: Any) -> None:
    """Turns each term t into rank[t], and sorts each passage's postings by it, in place."""
    for row in range(indptr.size - 1):
        start = indptr[row]
        for i in range(start, indptr[row + 1]):
            term = rank[terms[i]]
            count = counts[i]
            j = i
            while j > start and terms[j - 1] > term:
                terms[j] = terms[j - 1]
                counts[j] = counts[j - 1]
                j -= 1
            terms[j] = term
            counts[j] = count
