"""The FAISS leg: inner products with unit vectors.

FAISS computes in float32, by other code for one query than for many, so the same pair can score
1e-7 apart from call to call, and its heaps promise no order among equals. Here FAISS only
nominates: more rows than wanted, until those left out must score less whatever the rounding. Each
nominee is then scored again in float64 and rounded to a multiple of 2**-20 (1e-6, well above the
noise and exact in float32 up to 16). So a score depends on its two vectors alone, passages that
say the same tie, and ties go by row. The passage's vector is the one that is stored: of the finer
copy where there is one, else as the index's own storage decodes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BundleCorrupt, BundleMissing, BundleMixed, ConfigurationError, ModelFailure
from rag.index.dense.build import FILE, REFINEMENT
from rag.index.dense.factory import describe, faiss
from rag.index.dense.nominators import Nominator, make_nominator
from rag.index.dense.spec import NO_REFINE, Spec, resolve
from rag.index.dense.stored import (
    FEW,
    FlatStored,
    ListStored,
    Stored,
    nominate_exactly,
    rank,
)
from rag.index.topk import check_depth, check_mask, no_hits
from rag.types import Float32, Hits, Int64, RowMask

EXACT_BELOW = 0.1
"""Where fewer of the rows are allowed than this share, a graph or a list search gets lost: scan
instead."""


class DenseLeg:
    """The FAISS leg of one bundle, memory-mapped; safe to search from several threads.

    FAISS runs each search on OpenMP threads, a pool for every calling thread. `threads` bounds it
    for this leg (FAISS keeps that number by calling thread, so it is set before each search);
    None leaves what the caller has set with faiss.omp_set_num_threads or OMP_NUM_THREADS. `index`
    is FAISS's own, `spec` what it is.
    """

    def __init__(
        self,
        index: Any,
        stored: Stored,
        nominator: Nominator | None,
        *,
        spec: Spec,
        threads: int | None,
    ) -> None:
        self.index = index
        self.spec = spec
        self._stored = stored
        self._nominator = nominator
        self._threads = threads

    @classmethod
    def open(
        cls,
        folder: Path,
        reference: Mapping[str, Any],
        measured: Mapping[str, Any] | None = None,
        *,
        threads: int | None = None,
    ) -> DenseLeg:
        """Maps the files below `folder/dense`; `reference` is what `build_dense` returned, and
        `measured` what was measured with it: for 'auto' the index that it chose, and tuned search
        options.

        Raises BundleMissing, BundleCorrupt, or BundleMixed where it is not the index described.
        """
        spec = resolve(reference, measured or {}, str(folder / FILE))
        index = read_index(folder / FILE)
        check_described(index, spec, folder / FILE)
        refinement = None
        if spec.refine != NO_REFINE:
            refinement = read_index(folder / REFINEMENT)
            finer = Spec("flat", spec.dimension, spec.refine)
            check_described(refinement, finer, folder / REFINEMENT)
            if refinement.ntotal != index.ntotal:
                raise BundleMixed(
                    f"{folder / REFINEMENT} has {refinement.ntotal} vectors, {FILE.name} has"
                    f" {index.ntotal}; build the bundle again"
                )
        stored, nominator = _stored(index, refinement), make_nominator(index, spec)
        return cls(index, stored, nominator, spec=spec, threads=threads)

    def with_nominator(self, nominator: Nominator) -> DenseLeg:
        """The same vectors, found in another way."""
        return DenseLeg(self.index, self._stored, nominator, spec=self.spec, threads=self._threads)

    def with_threads(self, threads: int) -> DenseLeg:
        """The same, with `threads` for each search."""
        return DenseLeg(self.index, self._stored, self._nominator, spec=self.spec, threads=threads)

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return self._stored.rows

    @property
    def dimension(self) -> int:
        """Their length."""
        return self._stored.dimension

    @property
    def keeps_float32(self) -> bool:
        """Whether `vectors` gives them as they were built from, bit for bit."""
        spec = self.spec
        return (spec.storage if spec.refine == NO_REFINE else spec.refine) == "float32"

    def vectors(self, rows: Int64) -> Float32:
        """The vectors of `rows` as they are scored, float32 (len(rows), d); IndexError for a row
        that is not there.
        """
        self._check_rows(rows)
        return self._stored.vectors(rows)

    def located_vectors(self, rows: Int64) -> tuple[Float32, Int64]:
        """`vectors` without a copy, where they lie in memory as they are: float32 (m, d), and int64
        (len(rows),), where among them those of `rows` stand.
        """
        self._check_rows(rows)
        return self._stored.located(rows)

    def _check_rows(self, rows: Int64) -> None:
        if rows.size and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"rows must lie in 0..{self.rows - 1}")

    def search(self, vectors: Float32, k: int, allowed: RowMask | None) -> Hits:
        """The k rows of highest inner product for each of float32 (n, d) query vectors.

        'flat' is exact; so are the others under a mask that leaves few rows. Raises ValueError for
        a negative k or an array of another shape or type, ModelFailure for values that are not
        finite or a mask of another size.
        """
        check_depth(k)
        check_mask(allowed, self.rows)
        check_queries(vectors, self.dimension)
        hits = no_hits(len(vectors), k)
        selected = self.rows if allowed is None else int(np.count_nonzero(allowed))
        depth = min(k, selected)
        if depth == 0 or len(vectors) == 0:
            return hits
        if self._threads is not None:
            faiss.omp_set_num_threads(self._threads)
        queries = np.ascontiguousarray(vectors)
        rank(self._stored, queries, self._nominate(queries, depth, selected, allowed), hits)
        return hits

    def _nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        """Exactly where that is wanted, and for a query where the index finds too few."""
        if self._nominator is None or self._loses(self._nominator, selected):
            return nominate_exactly(self._stored, queries, depth, allowed)
        nominees = self._nominator.nominate(queries, depth, selected, allowed)
        for i, rows in enumerate(nominees):
            if len(rows) < depth:
                one = queries[i : i + 1]
                nominees[i : i + 1] = nominate_exactly(self._stored, one, depth, allowed)
        return nominees

    def _loses(self, nominator: Nominator, selected: int) -> bool:
        """Whether so few rows are found sooner, or only, by looking at each."""
        return selected <= FEW if nominator.finds_few else selected < EXACT_BELOW * self.rows


def check_queries(vectors: Float32, dimension: int) -> None:
    """Raises ValueError unless float32 (n, dimension), ModelFailure for what is not finite."""
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(
            f"query vectors must be float32 (n, {dimension}), got {vectors.dtype}"
            f" {vectors.shape}; the encoder does not belong to this index"
        )
    if not np.isfinite(vectors).all():
        raise ModelFailure("a query vector is not finite; the encoder failed on this query")


def read_index(path: Path) -> Any:
    """The FAISS index in `path`, memory-mapped; BundleMissing or BundleCorrupt."""
    if not path.is_file():
        raise BundleMissing(f"{path} is not there; copy or build the bundle again")
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BundleCorrupt(f"{path} cannot be read ({reason}); build it again") from None


def check_described(index: Any, spec: Spec, path: Path) -> None:
    """Raises BundleMixed unless `index` is what `spec` makes."""
    try:
        found = describe(index)
    except ConfigurationError as error:
        raise BundleMixed(f"{path} holds {error}; build the bundle again") from None
    said = spec.reference()
    described = {name: said[name] for name in found}
    if found != described:
        raise BundleMixed(f"{path} is {found}, the manifest says {described}; build again")


def _stored(index: Any, refinement: Any | None) -> Stored:
    if refinement is not None:
        return FlatStored(refinement)
    if isinstance(index, faiss.IndexIVF):
        return ListStored(index)
    if isinstance(index, faiss.IndexHNSW):
        return FlatStored(faiss.downcast_index(index.storage))
    return FlatStored(index)
