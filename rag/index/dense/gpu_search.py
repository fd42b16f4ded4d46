"""Nominators on GPUs. Each nominee is scored again on the CPU, from the vectors that are stored
there, so hits, filters and ties are those of every other dense leg (see rag/index/dense/leg.py).

FAISS's GPU indexes know no filters: more is nominated, and what the mask does not admit is left
out. They also give at most 2,048 rows for a query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from rag.index.dense.factory import faiss
from rag.index.dense.stored import GRID, SPARE
from rag.types import Float32, Int64, RowMask

MOST = 2048
"""FAISS's limit on k on a GPU."""
ROUNDING = 2.0**-10
"""Two float16 roundings, of query and passage, change an inner product of unit vectors by less."""


class GpuScan:
    """Every vector in float16, on one device or several.

    Nominates until what was left out must score less, whatever the rounding: exact, but where
    2,048 nominees do not decide it, which needs as many passages of nearly one score.
    """

    def __init__(self, index: Any, *, keep: Any = None) -> None:
        self._index = index
        self._keep = keep  # what FAISS holds only the addresses of
        self._lock = threading.Lock()

    def nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        rows = int(self._index.ntotal)
        most = min(MOST, rows)
        error = ROUNDING + self._index.d * 2.0**-24
        found: list[Int64] = [np.zeros(0, dtype=np.int64)] * len(queries)
        left = np.arange(len(queries))
        width = min(most, wide_enough(2 * depth + SPARE, rows, selected))
        while left.size:
            with self._lock:  # FAISS's GPU resources serve one search at a time
                scores, nominees = self._index.search(queries[left], width)
            undecided = []
            for i, line, nominated in zip(left, scores, nominees, strict=True):
                admitted = nominated >= 0
                if allowed is not None:
                    admitted &= allowed[nominated]
                found[i] = nominated[admitted]
                kept = line[admitted]
                if width < most and (
                    len(kept) < depth or line[-1] >= kept[depth - 1] - 2 * error - 1 / GRID
                ):
                    undecided.append(i)
            left = np.array(undecided, dtype=np.int64)
            width = min(most, 4 * width)
        return found


class GpuIndex:
    """The bundle's own index, on one device or several. `parameters` makes FAISS's search
    parameters for a depth.
    """

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
