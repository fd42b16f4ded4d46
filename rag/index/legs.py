"""The searching half of an `Index` with `Evidence`: two legs, and the queries' terms."""

from __future__ import annotations

from collections.abc import Sequence

from rag.index.analyzer import Analyzer
from rag.index.dense import DenseLeg
from rag.index.manifest import Manifest
from rag.index.protocol import QueryTerms, TermWeights
from rag.index.queries import QueryAnalysis
from rag.index.sparse import SparseLeg
from rag.types import Float32, Hits, Int64, RowMask


class Legs:
    """Both legs of one generation, as rag/index/protocol.py says; who stores the passages' text
    adds `select` and `chunks`.

    `dense` may be set, by callers that place it on a GPU; `analyzer` made the passages' terms.
    """

    def __init__(
        self, manifest: Manifest, dense: DenseLeg, sparse: SparseLeg, analyzer: Analyzer
    ) -> None:
        self.dense = dense
        self.analyzer = analyzer
        self._manifest = manifest
        self._sparse = sparse
        self._queries = QueryAnalysis(analyzer, sparse.ids)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def search_dense(self, vectors: Float32, k: int, allowed: RowMask | None) -> Hits:
        return self.dense.search(vectors, k, allowed)

    def search_sparse(self, queries: Sequence[str], k: int, allowed: RowMask | None) -> Hits:
        return self._sparse.search_ids(self._queries.batch(queries), k, allowed)

    def vectors(self, rows: Int64) -> Float32:
        return self.dense.vectors(rows)

    def located_vectors(self, rows: Int64) -> tuple[Float32, Int64]:
        return self.dense.located_vectors(rows)

    def passage_terms(self, rows: Int64) -> TermWeights:
        return self._sparse.passage_terms(rows)

    def query_terms(self, queries: Sequence[str]) -> QueryTerms:
        return self._sparse.terms_of_ids(self._queries.batch(queries))
