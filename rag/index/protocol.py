"""What an index is, whether it is files on this machine or an external database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rag.index.manifest import Manifest
from rag.types import Chunk, Float32, Hits, Int64, RowMask


class Index(Protocol):
    """One generation. Row i is the same chunk on both legs and in the store; rows are sorted by
    chunk id.

    Searches return `Hits` of exactly depth k (padded where fewer rows match); a row whose mask is
    False is never among them. `search_dense` takes float32 (n, d) unit vectors, scores are inner
    products; `search_sparse` takes raw query texts and analyses them as the passages were, scores
    are BM25, and rows that share no term with the query are not hits. `select` raises
    InvalidFilter. `chunks` raises IndexError for a row outside 0..rows-1.
    """

    @property
    def manifest(self) -> Manifest: ...

    def search_dense(self, vectors: Float32, k: int, allowed: RowMask | None) -> Hits: ...

    def search_sparse(self, queries: Sequence[str], k: int, allowed: RowMask | None) -> Hits: ...

    def select(self, where: Mapping[str, Any]) -> RowMask: ...

    def chunks(self, rows: Int64) -> list[Chunk]: ...


class TermWeights(NamedTuple):
    """The terms of n passages. Passage i has terms[starts[i]:ends[i]] (int32 ids, ascending), each
    with what it adds to the passage's BM25 score (`weights`, float32, 0 or more). What lies between
    is other passages'.
    """

    starts: Int64
    ends: Int64
    terms: NDArray[np.int32]
    weights: Float32


class QueryTerms(NamedTuple):
    """The terms of n queries that the index knows. Query i has terms[starts[i]:starts[i + 1]]
    (int32 ids, ascending), each with how often the query has it (`counts`, float32) and how rare
    it is (`idf`, float32, above 0).
    """

    starts: Int64
    terms: NDArray[np.int32]
    counts: Float32
    idf: Float32


@runtime_checkable
class Evidence(Protocol):
    """What an index can tell of passages that it found, beyond their scores; an `Index` that can
    is searched better (see rag/retrieval/feedback.py).

    `vectors` gives float32 (len(rows), d), `passage_terms` the terms of each of `rows`, both in
    that order and raising IndexError for a row outside 0..rows-1. `located_vectors` gives the same
    vectors without a copy where they lie in memory as they are: float32 (m, d), and int64
    (len(rows),), where among them those of `rows` stand. `query_terms` analyses raw query texts as
    `search_sparse` does.
    """

    def vectors(self, rows: Int64) -> Float32: ...

    def located_vectors(self, rows: Int64) -> tuple[Float32, Int64]: ...

    def passage_terms(self, rows: Int64) -> TermWeights: ...

    def query_terms(self, queries: Sequence[str]) -> QueryTerms: ...
