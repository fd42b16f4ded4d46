"""Compiled loops that put counted terms in order; see rag/compiled/ for how."""

from __future__ import annotations

from typing import Any

import numpy as np

from rag.compiled.kernel import kernel, reads, writes
from rag.types import Int64


@kernel(
    reads(np.int32),
    reads(np.int32),
    reads(np.int32),
    reads(np.int64),
    writes(np.int32),
    writes(np.int32),
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


@kernel(reads(np.int32), reads(np.int64), writes(np.int32), writes(np.int32))
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
