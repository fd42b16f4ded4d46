"""What an index is, whether it is files on this machine or an external database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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
