"""How an index that does not scan everything nominates rows.

What is asked of FAISS depends on the depth only beyond what the options ask for anyway, so that a
smaller k gives a prefix of a larger one.
"""

from __future__ import annotations

from typing import Any, Protocol

from rag.index.dense.factory import faiss
from rag.index.dense.spec import Spec
from rag.index.dense.stored import SPARE, make_selector
from rag.types import Float32, Int64, RowMask


class Nominator(Protocol):
    @property
    def finds_few(self) -> bool:
        """Whether it finds those that a mask leaves, however few they are."""
        ...

    def nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        """For each query, rows in no order, of the `selected` ones that `allowed` admits; fewer
        than `depth` where too few were found.
        """
        ...


def make_nominator(index: Any, spec: Spec) -> Nominator | None:
    """The nominator of a FAISS index; None for 'flat'."""
    if spec.kind == "hnsw":
        return Graph(index, spec.numbers["ef_search"])
    if spec.kind == "ivf":
        return Lists(index, spec.numbers["nprobe"], spec.numbers["candidates"])
    return None


class Graph:
    """HNSW: as many nominees as the search keeps candidates."""

    finds_few = False

    def __init__(self, index: Any, ef_search: int) -> None:
        self._index = index
        self._ef_search = ef_search

    def nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        width = max(self._ef_search, depth + SPARE)
        parameters = faiss.SearchParametersHNSW(efSearch=width, sel=make_selector(allowed))
        _, rows = self._index.search(queries, min(width, selected), params=parameters)
        return [line[line >= 0] for line in rows]


class Lists:
    """IVF: the best `candidates` of the `nprobe` nearest lists."""

    finds_few = False

    def __init__(self, index: Any, nprobe: int, candidates: int) -> None:
        self._index = index
        self._nprobe = nprobe
        self._candidates = candidates

    def nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        width = max(self._candidates, depth + SPARE)
        parameters = faiss.SearchParametersIVF(nprobe=self._nprobe, sel=make_selector(allowed))
        _, rows = self._index.search(queries, min(width, selected), params=parameters)
        return [line[line >= 0] for line in rows]
