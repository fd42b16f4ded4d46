"""Terms by passage: what the passages that were found say, for a search that learns from them.

Files in `sparse/`: `forward_indptr.npy` (int64, by passage), `forward_terms.npy` (int32, ascending
within a passage), `forward_weights.npy` (float32, what a term adds to the passage's BM25 score;
never negative) and `forward_idf.npy` (float32, by term). Equal input gives equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.errors import BundleMixed
from rag.index.bm25 import Postings
from rag.index.kernels import group_by_term
from rag.index.protocol import QueryTerms, TermWeights
from rag.index.vocabulary import open_array
from rag.types import Float32, Int64

ARRAYS = {"indptr": np.int64, "terms": np.int32, "weights": np.float32, "idf": np.float32}


class Forward:
    """The terms of each passage, memory-mapped; safe to read from several threads."""

    def __init__(
        self, indptr: Int64, terms: NDArray[np.int32], weights: Float32, idf: Float32
    ) -> None:
        self._indptr = indptr
        self._terms = terms
        self._weights = weights
        self._idf = idf

    @staticmethod
    def write(folder: Path, postings: Postings, passages: int, weight: NDArray[np.float64]) -> None:
        """Turns postings by term into postings by passage, and writes them into `folder`.

        A term's idf is that of its passages times its `weight`, float64 by term.
        """
        frequency = np.diff(postings.indptr)
        sizes = np.bincount(postings.rows, minlength=passages)
        indptr = np.zeros(passages + 1, dtype=np.int64)
        np.cumsum(sizes, out=indptr[1:])
        terms = np.empty(len(postings.rows), dtype=np.int32)
        bits = np.empty_like(terms)  # the kernel moves 32 bits; that they are a float is no matter
        group_by_term(
            postings.rows,
            np.maximum(postings.scores, np.float32(0)).view(np.int32),
            frequency.astype(np.int32),
            indptr[:-1].copy(),
            terms,
            bits,
        )
        idf = weight * np.log1p((passages - frequency + 0.5) / (frequency + 0.5))
        arrays: list[NDArray[Any]] = [indptr, terms, bits.view(np.float32), idf.astype(np.float32)]
        for name, values in zip(ARRAYS, arrays, strict=True):
            np.save(folder / f"forward_{name}.npy", values)

    @classmethod
    def open(cls, folder: Path, *, passages: int, terms: int) -> Forward:
        """Maps what `write` wrote; BundleMissing, BundleCorrupt or BundleMixed names the file."""
        arrays = [open_array(folder / f"forward_{name}.npy", kind) for name, kind in ARRAYS.items()]
        indptr, found, weights, idf = arrays
        sizes = (len(indptr) - 1, len(idf), len(weights))
        if sizes != (passages, terms, len(found)) or indptr[0] != 0 or indptr[-1] != len(found):
            raise BundleMixed(
                f"{folder / 'forward_indptr.npy'} does not fit the other files; build again"
            )
        return cls(indptr, found, weights, idf)

    def passages(self, rows: Int64) -> TermWeights:
        """The terms of each of `rows`, in that order; IndexError for a row that is not there."""
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self._indptr) - 1:
            raise IndexError(f"rows must lie in 0..{len(self._indptr) - 2}")
        indptr = self._indptr
        return TermWeights(indptr[rows], indptr[rows + 1], self._terms, self._weights)

    def queries(self, queries: Sequence[Int64]) -> QueryTerms:
        """Each query's term ids, which ascend (-1: unknown, left out), once each."""
        tallies = [Counter(query.tolist()) for query in queries]
        for tally in tallies:
            tally.pop(-1, None)
        starts = np.zeros(len(tallies) + 1, dtype=np.int64)
        np.cumsum([len(tally) for tally in tallies], out=starts[1:])
        terms = np.array([term for tally in tallies for term in tally], dtype=np.int32)
        counts = [count for tally in tallies for count in tally.values()]
        return QueryTerms(starts, terms, np.array(counts, dtype=np.float32), self._idf[terms])
