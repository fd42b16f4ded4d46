"""The BM25 leg: postings with their scores computed ahead, memory-mapped, added up at query time.

Files in `sparse/`: the vocabulary (rag/index/vocabulary.py), the terms of each passage
(rag/index/forward.py) and, by term, `indptr.npy` (int64),
`rows.npy` (int32, ascending within a term), `scores.npy` (float32) and `absent.npy` (float32, only
not zero for 'bm25l' and 'bm25+'). Equal input gives equal bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rag.errors import BundleCorrupt, BundleMixed, ConfigurationError
from rag.index import rank_bm25_engine
from rag.index.bm25 import TermCounts, Variant, count_terms, weigh
from rag.index.forward import Forward
from rag.index.kernels import search_postings
from rag.index.protocol import QueryTerms, TermWeights
from rag.index.topk import check_depth, check_mask, no_hits
from rag.index.vocabulary import Vocabulary, is_index_of, open_array
from rag.types import Float32, Hits, Int64, RowMask

FOLDER = "sparse"
ENGINES = ("bm25s", "rank-bm25")
ALL_ROWS: RowMask = np.zeros(0, dtype=np.bool_)
TermWeight = Callable[[str], float]


def one(term: str) -> float:
    """The weight of a term where all count the same."""
    return 1.0


def build_sparse(
    folder: Path,
    terms: Iterable[Sequence[str]],
    *,
    weight: TermWeight = one,
    engine: str = "bm25s",
    method: str | None = None,
    k1: float = 1.5,
    b: float = 0.75,
    delta: float = 0.5,
) -> dict[str, Any]:
    """Writes `folder/sparse/` from the terms of each passage, in row order; returns its reference.

    `terms` is read once, one passage in memory at a time. `weight` says how much a term counts
    (see `Analyzer.weight`; rank-bm25 counts all alike). `method` is a BM25 variant (see
    rag/index/bm25.py); None means 'lucene', or 'okapi' for rank-bm25. Raises ConfigurationError.
    """
    return write_sparse(
        folder, lambda: count_terms(terms), weight=weight,
        engine=engine, method=method, k1=k1, b=b, delta=delta,
    )  # fmt: skip


def write_sparse(
    folder: Path,
    count: Callable[[], TermCounts],
    *,
    weight: TermWeight = one,
    engine: str = "bm25s",
    method: str | None = None,
    k1: float = 1.5,
    b: float = 0.75,
    delta: float = 0.5,
) -> dict[str, Any]:
    """`build_sparse` from terms that `count` has counted; it is called once the options are known
    to be right.
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"unknown engine '{engine}'; use one of {', '.join(ENGINES)}")
    variant = Variant(method or ("lucene" if engine == "bm25s" else "okapi"), k1, b, delta)
    corpus = count()
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    Vocabulary.write(target, corpus.vocabulary)
    weights = np.array([weight(term) for term in corpus.vocabulary], dtype=np.float64)
    postings = weigh(corpus, variant, weights)
    if engine == "bm25s":
        for name in ("indptr", "rows", "scores", "absent"):
            np.save(target / f"{name}.npy", getattr(postings, name))
    else:
        rank_bm25_engine.write(target, corpus, variant)
    Forward.write(target, postings, len(corpus.sizes), weights)
    return {
        "engine": engine,
        "method": variant.method,
        "k1": k1,
        "b": b,
        "delta": delta,
        "counts": {
            "passages": len(corpus.sizes),
            "terms": len(corpus.vocabulary),
            "postings": len(corpus.terms),
        },
    }


class Engine(Protocol):
    """What scores term ids: `rows` passages, and a search like `SparseLeg.search`."""

    rows: int
    vocabulary: Vocabulary

    def search(self, queries: Sequence[Int64], k: int, allowed: RowMask | None) -> Hits: ...


class SparseLeg:
    """The BM25 leg of one bundle; safe to search from several threads."""

    def __init__(self, engine: Engine, forward: Forward) -> None:
        self._engine = engine
        self._forward = forward

    @classmethod
    def open(cls, folder: Path, reference: Mapping[str, Any]) -> SparseLeg:
        """Opens `folder/sparse/` as `reference` (from `build_sparse`) describes it.

        Raises BundleMissing, BundleCorrupt or BundleMixed naming the file, and ConfigurationError
        for an engine that this program does not have.
        """
        counts = reference["counts"]
        engine: Engine
        match reference["engine"]:
            case "bm25s":
                engine = _Postings(folder / FOLDER, counts)
            case "rank-bm25":
                options = (reference[name] for name in ("method", "k1", "b", "delta"))
                engine = rank_bm25_engine.RankBM25(folder / FOLDER, Variant(*options))
            case unknown:
                raise ConfigurationError(
                    f"{folder}: unknown engine '{unknown}'; use one of {', '.join(ENGINES)}"
                )
        sizes = {"passages": engine.rows, "terms": len(engine.vocabulary)}
        return cls(engine, Forward.open(folder / FOLDER, **sizes))

    @property
    def rows(self) -> int:
        """How many passages there are."""
        return self._engine.rows

    def search(self, queries: Sequence[Sequence[str]], k: int, allowed: RowMask | None) -> Hits:
        """The best k passages for each query, which is given as terms.

        A passage that shares no term with the query is no hit; one that does is, even with a score
        of zero or less. A term that occurs twice in the query counts twice. Scores do not depend
        on the order of terms. Raises ValueError for a negative k, ModelFailure for a bad mask.
        """
        return self.search_ids(self.ids(queries), k, allowed)

    def search_ids(self, queries: Sequence[Int64], k: int, allowed: RowMask | None) -> Hits:
        """`search` for queries as `ids` gives them."""
        check_depth(k)
        check_mask(allowed, self.rows)
        return self._engine.search(queries, k, allowed)

    def passage_terms(self, rows: Int64) -> TermWeights:
        """The terms of each of `rows`; IndexError for a row that is not there."""
        return self._forward.passages(rows)

    def query_terms(self, queries: Sequence[Sequence[str]]) -> QueryTerms:
        """The known terms of queries that are given as terms."""
        return self.terms_of_ids(self.ids(queries))

    def terms_of_ids(self, queries: Sequence[Int64]) -> QueryTerms:
        """`query_terms` for queries as `ids` gives them."""
        return self._forward.queries(queries)

    def ids(self, queries: Sequence[Sequence[str]]) -> list[Int64]:
        """The ids of each query's terms, ascending; a term that occurs twice is there twice, one
        that no passage has is -1.
        """
        ids = self._engine.vocabulary.ids([term for query in queries for term in query])
        ends = accumulate((len(query) for query in queries), initial=0)
        return [np.sort(ids[start:end]) for start, end in pairwise(ends)]


class _Postings:
    """Postings with scores, mapped from disk (engine 'bm25s')."""

    def __init__(self, folder: Path, counts: Mapping[str, int]) -> None:
        self.rows = counts["passages"]
        self.vocabulary = Vocabulary.open(folder)
        self._indptr: Int64 = open_array(folder / "indptr.npy", np.int64)
        self._rows: NDArray[np.int32] = open_array(folder / "rows.npy", np.int32)
        self._scores: Float32 = open_array(folder / "scores.npy", np.float32)
        self._absent: Float32 = open_array(folder / "absent.npy", np.float32)
        self._shifted = bool(self._absent.any())
        if not is_index_of(self._indptr, len(self._rows)) or len(self._rows) != len(self._scores):
            raise BundleCorrupt(
                f"{folder / 'indptr.npy'} does not fit the postings; build it again"
            )
        found = {"terms": len(self._indptr) - 1, "postings": len(self._rows)}
        sizes = {len(self.vocabulary), len(self._absent), counts["terms"], found["terms"]}
        if len(sizes) != 1 or found["postings"] != counts["postings"]:
            raise BundleMixed(
                f"{folder} holds {found}, the manifest says {dict(counts)}; build again"
            )
        self._scratch: deque[tuple[Float32, NDArray[np.int32]]] = deque()

    def search(self, queries: Sequence[Int64], k: int, allowed: RowMask | None) -> Hits:
        hits = no_hits(len(queries), k)
        depth = min(k, self.rows)
        if not queries or depth == 0:
            return hits
        found = hits if depth == k else no_hits(len(queries), depth)
        pointers = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum([len(query) for query in queries], out=pointers[1:])
        base = np.zeros(len(queries), dtype=np.float32)
        if self._shifted:
            base[:] = [self._absent[query[query >= 0]].sum(dtype=np.float32) for query in queries]
        scratch = self._take_scratch()
        search_postings(
            self._indptr, self._rows, self._scores, np.concatenate(queries), pointers, base,
            ALL_ROWS if allowed is None else np.ascontiguousarray(allowed),
            *scratch, found.rows, found.scores,
        )  # fmt: skip
        self._scratch.append(scratch)
        if found is not hits:
            hits.rows[:, :depth] = found.rows
            hits.scores[:, :depth] = found.scores
        return hits

    def _take_scratch(self) -> tuple[Float32, NDArray[np.int32]]:
        """Buffers for one search; as many exist as searches ever ran at once."""
        try:
            return self._scratch.pop()
        except IndexError:
            sums = np.full(self.rows, -np.inf, dtype=np.float32)
            return sums, np.empty(self.rows, dtype=np.int32)
