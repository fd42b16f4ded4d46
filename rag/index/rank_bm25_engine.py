"""The sparse leg through the `rank_bm25` library: for small corpora, and to compare against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BundleCorrupt, ConfigurationError
from rag.index.bm25 import OKAPI_EPSILON, TermCounts, Variant
from rag.index.topk import best, no_hits
from rag.index.vocabulary import Vocabulary, open_array
from rag.types import Float32, Hits, Int64, RowMask

METHODS = {"okapi": "BM25Okapi", "bm25l": "BM25L", "bm25+": "BM25Plus"}
MAX_PASSAGES = 50_000
FILES = ("passage_terms", "passage_counts", "passage_sizes")


def write(folder: Path, corpus: TermCounts, variant: Variant) -> None:
    """Stores the terms of each passage; ConfigurationError for what the library cannot do."""
    if variant.method not in METHODS:
        raise ConfigurationError(
            f"rank-bm25 has no method '{variant.method}'; use one of {', '.join(METHODS)}"
        )
    if len(corpus.sizes) > MAX_PASSAGES:
        raise ConfigurationError(
            f"rank-bm25 takes a tenth of a second and more for a query over {len(corpus.sizes)}"
            f" passages; above {MAX_PASSAGES} use the engine bm25s"
        )
    for name, values in zip(FILES, (corpus.terms, corpus.counts, corpus.sizes), strict=True):
        np.save(folder / f"{name}.npy", values)


class RankBM25:
    """Scores every passage with the library, for each query anew."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        terms, counts, sizes = (open_array(folder / f"{name}.npy", np.int32) for name in FILES)
        if len(terms) != len(counts) or int(sizes.sum()) != len(terms):
            raise BundleCorrupt(f"{folder / FILES[0]}.npy does not fit the others; build it again")
        pieces = zip(_cut(terms, sizes), _cut(counts, sizes), strict=True)
        passages = [np.repeat(t, n).tolist() for t, n in pieces]
        self.rows = len(passages)
        self.vocabulary = Vocabulary.open(folder)
        self._model = _model(passages, variant) if len(terms) else None

    def search(self, queries: Sequence[Int64], k: int, allowed: RowMask | None) -> Hits:
        """As `SparseLeg.search`, for queries as term ids."""
        hits = no_hits(len(queries), k)
        for i, query in enumerate(queries):
            rows, scores = self._score(query[query >= 0].tolist(), allowed)
            order = best(rows, scores)[:k]
            hits.rows[i, : len(order)] = rows[order]
            hits.scores[i, : len(order)] = scores[order]
        return hits

    def _score(self, query: list[int], allowed: RowMask | None) -> tuple[Int64, Float32]:
        if self._model is None or not query:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        words = set(query)
        shared = np.array([not words.isdisjoint(p) for p in self._model.doc_freqs], dtype=np.bool_)
        rows = np.flatnonzero(shared if allowed is None else shared & allowed)
        return rows, self._model.get_scores(query)[rows].astype(np.float32)


def _model(passages: list[list[int]], variant: Variant) -> Any:
    try:
        import rank_bm25
    except ImportError:
        raise ConfigurationError(
            "this bundle's sparse leg needs rank-bm25; install rag-containers[indexer]"
        ) from None
    options = {"epsilon": OKAPI_EPSILON} if variant.method == "okapi" else {"delta": variant.delta}
    return getattr(rank_bm25, METHODS[variant.method])(
        passages, k1=variant.k1, b=variant.b, **options
    )


def _cut(values: Any, sizes: Any) -> list[Any]:
    ends = np.cumsum([0, *sizes.tolist()])
    return [values[start:end] for start, end in pairwise(ends)]
