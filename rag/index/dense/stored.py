"""The vectors that scores are computed from, and the exact search over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from rag.index.dense.factory import faiss
from rag.index.kernels import rank_nominees
from rag.types import Float32, Hits, Int64, RowMask

GRID = 2.0**20
SPARE = 16
"""Nominees beyond k: at least so many decide nearly every tie at the boundary at once."""
FEW = 4096
"""So many rows are scored one by one rather than found by a scan of everything."""


class Stored(Protocol):
    """Vectors by row. `exact` gives FAISS's search of all of them."""

    @property
    def rows(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    def vectors(self, rows: Int64) -> Float32:
        """As stored and decoded: float32 (len(rows), d)."""
        ...

    def located(self, rows: Int64) -> tuple[Float32, Int64]:
        """Vectors, and where among them those of `rows` stand: what saves a copy, where it can."""
        ...

    def top(self, queries: Float32, k: int, selector: Any) -> tuple[Float32, Int64]:
        """FAISS's k best by float32 inner products: scores and rows, (n, k) each."""
        ...

    def above(self, query: Float32, floor: float, selector: Any) -> Int64:
        """Every row that scores above `floor` for one query, float32 (1, d)."""
        ...


class FlatStored:
    """A flat FAISS index, of whatever storage; usually memory-mapped."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.rows = int(index.ntotal)
        self.dimension = int(index.d)
        codes = faiss.rev_swig_ptr(index.codes.data(), self.rows * index.code_size)
        self._codes = codes.reshape(self.rows, index.code_size)
        self._plain = isinstance(index, faiss.IndexFlat)
        if self._plain:
            self._codes = self._codes.view(np.float32)

    def vectors(self, rows: Int64) -> Float32:
        codes = self._codes[rows]
        found: Float32 = codes if self._plain else self._index.sa_decode(codes)
        return found

    def located(self, rows: Int64) -> tuple[Float32, Int64]:
        if self._plain:
            return self._codes, rows
        return self.vectors(rows), np.arange(len(rows))

    def top(self, queries: Float32, k: int, selector: Any) -> tuple[Float32, Int64]:
        found: tuple[Float32, Int64] = self._index.search(
            queries, k, params=_flat_parameters(selector)
        )
        return found

    def above(self, query: Float32, floor: float, selector: Any) -> Int64:
        limits, _, rows = self._index.range_search(query, floor, params=_flat_parameters(selector))
        found: Int64 = rows[: limits[1]]
        return found


class ListStored:
    """The lists of an IVF index that has no finer copy: decoded, and scanned all for `top`."""

    def __init__(self, index: Any) -> None:
        index.make_direct_map()
        self._index = index
        self.rows = int(index.ntotal)
        self.dimension = int(index.d)

    def vectors(self, rows: Int64) -> Float32:
        found: Float32 = self._index.reconstruct_batch(rows)
        return found

    def located(self, rows: Int64) -> tuple[Float32, Int64]:
        return self.vectors(rows), np.arange(len(rows))

    def top(self, queries: Float32, k: int, selector: Any) -> tuple[Float32, Int64]:
        found: tuple[Float32, Int64] = self._index.search(
            queries, k, params=self._parameters(selector)
        )
        return found

    def above(self, query: Float32, floor: float, selector: Any) -> Int64:
        limits, _, rows = self._index.range_search(query, floor, params=self._parameters(selector))
        found: Int64 = rows[: limits[1]]
        return found

    def _parameters(self, selector: Any) -> Any:
        return faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist)


def rank(stored: Stored, queries: Float32, nominees: Sequence[Int64], hits: Hits) -> None:
    """Fills `hits` with each query's best nominees: inner products in float64, rounded to a
    multiple of 1 / GRID, ties by ascending row.
    """
    starts = np.zeros(len(nominees) + 1, dtype=np.int64)
    np.cumsum([len(rows) for rows in nominees], out=starts[1:])
    rows = np.concatenate(nominees)
    vectors, places = stored.located(rows)
    rank_nominees(vectors, places, rows, starts, queries, GRID, hits.rows, hits.scores)


def nominate_exactly(
    stored: Stored, queries: Float32, depth: int, allowed: RowMask | None
) -> list[Int64]:
    """For each query, rows that hold all of its best `depth`, ties at the boundary included."""
    selected = stored.rows if allowed is None else int(np.count_nonzero(allowed))
    if allowed is not None and selected <= FEW:
        return [np.flatnonzero(allowed)] * len(queries)
    selector = make_selector(allowed)
    wanted = min(depth + SPARE, selected)
    scores, rows = stored.top(queries, wanted, selector)
    if wanted == selected:
        return list(rows)
    # An inner product in float32 is off by at most d * 2**-24 * |a| * |b| (Higham, 2002, 3.1).
    error = stored.dimension * 2.0**-24 * np.maximum(np.linalg.norm(queries, axis=1), 1.0)
    floor = scores[:, depth - 1] - 2 * error - 1 / GRID
    nominees = list(rows)
    for i in np.flatnonzero(scores[:, -1] >= floor):
        nominees[i] = stored.above(queries[i : i + 1], float(floor[i]), selector)
    return nominees


def make_selector(allowed: RowMask | None) -> Any:
    """FAISS's form of a mask; None for all rows."""
    if allowed is None:
        return None
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _flat_parameters(selector: Any) -> Any:
    return None if selector is None else faiss.SearchParameters(sel=selector)
