"""The FAISS leg: inner products with unit vectors, exact ('flat') or by graph ('hnsw').

FAISS computes in float32, by other code for one query than for many, so the same pair can score
1e-7 apart from call to call, and its heaps promise no order among equals. Here FAISS only
nominates: more rows than wanted, until those left out must score less whatever the rounding. Each
nominee is then scored again in float64 and rounded to a multiple of 2**-20 (1e-6, well above the
noise and exact in float32 up to 16). So a score depends on its two vectors alone, passages that
say the same tie, and ties go by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from rag.errors import BundleCorrupt, BundleMissing, BundleMixed, ConfigurationError, ModelFailure
from rag.index.topk import best, check_depth, check_mask, no_hits
from rag.types import Float32, Hits, Int64, RowMask

faiss: Any = _faiss  # its type stubs leave out much of what it has

FILE = Path("dense") / "index.faiss"
KINDS = ("flat", "hnsw")
GRID = 2.0**20
SPARE = 16
"""Nominees beyond k: at least so many decide nearly every tie at the boundary at once."""
ROWS_AT_ONCE = 65_536
HNSW_DEFAULTS = {"m": 32, "ef_construction": 200, "ef_search": 128}
EXACT_BELOW = 0.1
"""Where fewer of the rows are allowed than this share, a graph search gets lost: scan instead."""


def build_dense(
    folder: Path, vectors: Float32, *, kind: str = "flat", **options: Any
) -> dict[str, Any]:
    """Writes `folder/dense/index.faiss` from float32 (n, d) unit vectors; returns its reference.

    `vectors` may be a memory map; it is read in blocks. Options of 'hnsw': m (links of a node),
    ef_construction and ef_search (candidates while building and searching); 'flat' has none.
    Raises ConfigurationError for a kind or option that does not exist, ValueError for an array of
    another shape or type, ModelFailure for values that are not finite.
    """
    allowed = {"flat": {}, "hnsw": HNSW_DEFAULTS}.get(kind)
    if allowed is None:
        raise ConfigurationError(f"unknown dense index '{kind}'; use one of {', '.join(KINDS)}")
    for name, value in options.items():
        if name not in allowed or not isinstance(value, int) or value < 1:
            known = ", ".join(allowed) or "none"
            raise ConfigurationError(f"'{name}={value}' is no option of '{kind}' (known: {known})")
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"vectors must be float32 (n, d), got {vectors.dtype} {vectors.shape}")
    settings: dict[str, int] = allowed | options
    index = _new_index(vectors.shape[1], kind, settings)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        block = np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE])
        if not np.isfinite(block).all():
            bad = start + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise ModelFailure(f"the vector of row {bad} is not finite; the encoder failed on it")
        index.add(block)
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(path))
    return {"kind": kind, "dimension": vectors.shape[1], "metric": "inner_product", **settings}


class DenseLeg:
    """The FAISS leg of one bundle, memory-mapped; safe to search from several threads.

    FAISS runs each search on OpenMP threads, a pool for every calling thread. `threads` bounds it
    for this leg (FAISS keeps that number by calling thread, so it is set before each search);
    None leaves what the caller has set with faiss.omp_set_num_threads or OMP_NUM_THREADS.
    """

    def __init__(self, index: Any, *, ef_search: int | None, threads: int | None) -> None:
        self._index = index
        self._flat = index if ef_search is None else faiss.downcast_index(index.storage)
        self._ef_search = ef_search
        self._threads = threads
        self._vectors: Float32 = faiss.rev_swig_ptr(
            self._flat.get_xb(), self._flat.ntotal * index.d
        ).reshape(-1, index.d)

    @classmethod
    def open(
        cls, folder: Path, reference: Mapping[str, Any], *, threads: int | None = None
    ) -> DenseLeg:
        """Maps `folder/dense/index.faiss`; `reference` is what `build_dense` returned.

        Raises BundleMissing, BundleCorrupt, or BundleMixed where it is not the index described.
        """
        path = folder / FILE
        if not path.is_file():
            raise BundleMissing(f"{path} is not there; copy or build the bundle again")
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise BundleCorrupt(f"{path} cannot be read ({reason}); build it again") from None
        hnsw = isinstance(index, faiss.IndexHNSWFlat)
        if not hnsw and not isinstance(index, faiss.IndexFlat):
            raise BundleMixed(f"{path} holds a {type(index).__name__}; build the bundle again")
        found = {
            "kind": "hnsw" if hnsw else "flat",
            "dimension": index.d,
            "metric": "inner_product" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2",
        }
        described = {name: reference.get(name) for name in found}
        if found != described:
            raise BundleMixed(f"{path} is {found}, the manifest says {described}; build again")
        return cls(index, ef_search=reference["ef_search"] if hnsw else None, threads=threads)

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Their length."""
        return int(self._index.d)

    def vectors(self, rows: Int64) -> Float32:
        """The vectors of `rows`, float32 (len(rows), d); IndexError for a row that is not there."""
        if rows.size and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"rows must lie in 0..{self.rows - 1}")
        found: Float32 = self._vectors[rows]
        return found

    def search(self, vectors: Float32, k: int, allowed: RowMask | None) -> Hits:
        """The k rows of highest inner product for each of float32 (n, d) query vectors.

        'flat' is exact; so is 'hnsw' under a mask that leaves few rows. Raises ValueError for a
        negative k or an array of another shape or type, ModelFailure for values that are not
        finite or a mask of another size.
        """
        check_depth(k)
        check_mask(allowed, self.rows)
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(
                f"query vectors must be float32 (n, {self.dimension}), got {vectors.dtype}"
                f" {vectors.shape}; the encoder does not belong to this index"
            )
        if not np.isfinite(vectors).all():
            raise ModelFailure("a query vector is not finite; the encoder failed on this query")
        hits = no_hits(len(vectors), k)
        selected = self.rows if allowed is None else int(np.count_nonzero(allowed))
        depth = min(k, selected)
        if depth == 0 or len(vectors) == 0:
            return hits
        if self._threads is not None:
            faiss.omp_set_num_threads(self._threads)
        queries = np.ascontiguousarray(vectors)
        selector = None if allowed is None else _selector(allowed)
        exact = self._ef_search is None or selected < EXACT_BELOW * self.rows
        nominate = self._nominate_exactly if exact else self._nominate_by_graph
        for i, rows in enumerate(nominate(queries, depth, selected, selector)):
            scores = self._score(queries[i], rows)
            order = best(rows, scores)[:depth]
            hits.rows[i, : len(order)] = rows[order]
            hits.scores[i, : len(order)] = scores[order]
        return hits

    def _score(self, query: Float32, rows: Int64) -> Float32:
        products = self._vectors[rows].astype(np.float64) @ query.astype(np.float64)
        return (np.rint(products * GRID) / GRID).astype(np.float32)

    def _nominate_exactly(
        self, queries: Float32, depth: int, selected: int, selector: Any
    ) -> list[Int64]:
        """For each query, rows that hold all of its best `depth`, ties at the boundary included."""
        wanted = min(depth + SPARE, selected)
        scores, rows = self._flat.search(queries, wanted, params=_flat_parameters(selector))
        if wanted == selected:
            return list(rows)
        # An inner product in float32 is off by at most d * 2**-24 * |a| * |b| (Higham, 2002, 3.1).
        error = self.dimension * 2.0**-24 * np.maximum(np.linalg.norm(queries, axis=1), 1.0)
        floor = scores[:, depth - 1] - 2 * error - 1 / GRID
        nominees = list(rows)
        for i in np.flatnonzero(scores[:, -1] >= floor):
            limits, _, found = self._flat.range_search(
                queries[i : i + 1], float(floor[i]), params=_flat_parameters(selector)
            )
            nominees[i] = found[: limits[1]]
        return nominees

    def _nominate_by_graph(
        self, queries: Float32, depth: int, selected: int, selector: Any
    ) -> list[Int64]:
        """As well as the graph finds them; exactly for a query where it finds too few.

        The depth asked of the graph depends on k only beyond ef_search, so that a smaller k gives
        a prefix of a larger one.
        """
        width = max(self._ef_search or 0, depth + SPARE)
        parameters = faiss.SearchParametersHNSW(efSearch=width, sel=selector)
        _, rows = self._index.search(queries, min(width, selected), params=parameters)
        nominees = [found[found >= 0] for found in rows]
        for i, found in enumerate(nominees):
            if len(found) < depth:
                nominees[i : i + 1] = self._nominate_exactly(
                    queries[i : i + 1], depth, selected, selector
                )
        return nominees


def _new_index(dimension: int, kind: str, settings: Mapping[str, int]) -> Any:
    if kind == "flat":
        return faiss.IndexFlatIP(dimension)
    index = faiss.IndexHNSWFlat(dimension, settings["m"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = settings["ef_construction"]
    index.hnsw.efSearch = settings["ef_search"]
    return index


def _selector(allowed: RowMask) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _flat_parameters(selector: Any) -> Any:
    return None if selector is None else faiss.SearchParameters(sel=selector)
