"""A bundle's own index on GPUs. Each nominee is scored again on the CPU, from the vectors that are
stored there, so hits, filters and ties are those of every other dense leg (see
rag/index/dense/leg.py).

FAISS's GPU indexes know no filters: more is nominated, and what the mask does not admit is left
out. They also give at most 2,048 rows for a query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rag.index.dense.factory import faiss
from rag.index.dense.stored import SPARE
from rag.types import Float32, Int64, RowMask

MOST = 2048
"""FAISS's limit on k on a GPU."""


class GpuIndex:
    """The bundle's own index, on one device or several. `parameters` makes FAISS's search
    parameters for a depth.
    """

    finds_few = False

    def __init__(
        self,
        index: Any,
        parameters: Callable[[int], Any],
        candidates: int,
        *,
        keep: Any = None,
    ) -> None:
        self._index = index
        self._keep = keep
        self._parameters = parameters
        self._candidates = candidates
        self._lock = threading.Lock()

    def nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        rows = int(self._index.ntotal)
        width = max(self._candidates, depth + SPARE)
        width = min(MOST, rows, wide_enough(width, rows, selected))
        with self._lock:
            _, nominees = self._index.search(queries, width, params=self._parameters(width))
        lines = [line[line >= 0] for line in nominees]
        return lines if allowed is None else [line[allowed[line]] for line in lines]


def wide_enough(wanted: int, rows: int, selected: int) -> int:
    """How many nominees probably hold `wanted` admitted ones, where `selected` rows are."""
    return wanted if selected == rows else int(1.5 * wanted * rows / max(1, selected))


def ivf_parameters(nprobe: int) -> Callable[[int], Any]:
    return lambda _: faiss.SearchParametersIVF(nprobe=min(nprobe, MOST))


def cagra_parameters(ef_search: int) -> Callable[[int], Any]:
    def make(width: int) -> Any:
        parameters = faiss.SearchParametersCagra()
        # The list of candidates that the search keeps, in whole warps.
        parameters.itopk_size = -(-max(ef_search, width) // 32) * 32
        return parameters

    return make
