"""A scan of every vector on a GPU, in float16: a matrix product by PyTorch, then the best of it.

Each nominee is scored again on the CPU, from the vectors that are stored there, so hits, filters
and ties are those of every other dense leg (see rag/index/dense/leg.py). Filters are applied where
the scores are, so that one which leaves little costs no more than none.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rag.index.dense.stored import GRID, SPARE
from rag.types import Float32, Int64, RowMask

MOST = 65_536
"""Nominees of one query, at most, where no more are wanted."""
ROUNDING = 2.0**-10 + 2.0**-11
"""Three float16 roundings, of query, passage and their inner product, change one of unit vectors by
less."""
SCORES_BYTES = 256 << 20
"""Of the scores that exist at once."""
QUERIES_AT_ONCE = 128


class Part:
    """The vectors of some rows, from `start` on, on one device: float16 (n, d) there.

    `blocks` are float32 (m, d), of `rows` rows in all. Not to be searched from two threads at once.
    """

    def __init__(
        self, device: str, start: int, rows: int, dimension: int, blocks: Iterable[Float32]
    ) -> None:
        import torch

        self.start = start
        self.vectors = torch.empty((rows, dimension), dtype=torch.float16, device=device)
        filled = 0
        for block in blocks:
            end = filled + len(block)
            self.vectors[filled:end] = torch.from_numpy(np.ascontiguousarray(block)).to(device)
            filled = end
        # Sums of products in float16 would be worse than ROUNDING says.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._stream = None
        if self.vectors.is_cuda:  # beside the encoder's kernels, not behind them
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def best(self, queries: Any, width: int, allowed: RowMask | None) -> tuple[Any, Any]:
        """Scores and rows of the `width` best for each of float16 (n, d) queries on the CPU, both
        (n, width or as many as there are rows), best first; tensors on the device, which may not be
        computed yet. Rows that are not allowed come last and score minus infinity.
        """
        import torch

        with torch.inference_mode(), torch.cuda.stream(self._stream):
            device = self.vectors.device
            asked = queries.to(device, non_blocking=True)
            barred = None
            if allowed is not None:
                own = allowed[self.start : self.start + len(self.vectors)]
                barred = torch.from_numpy(np.logical_not(own)).to(device)
            found = [self._block(asked, width, barred, *block) for block in self._blocks(asked)]
            scores, rows = (torch.cat(column, dim=1) for column in zip(*found, strict=True))
            scores, order = torch.topk(scores, min(width, scores.shape[1]), dim=1)
            return scores, rows.gather(1, order) + self.start

    def _blocks(self, asked: Any) -> list[tuple[int, int]]:
        """Where to cut the rows, so that the scores of a block fit into SCORES_BYTES."""
        rows = len(self.vectors)
        most = max(1, SCORES_BYTES // (asked.element_size() * len(asked)))
        return [(first, min(first + most, rows)) for first in range(0, rows, most)]

    def _block(self, asked: Any, width: int, barred: Any, first: int, end: int) -> tuple[Any, Any]:
        import torch

        scores = asked @ self.vectors[first:end].T
        if barred is not None:
            scores.masked_fill_(barred[first:end], -torch.inf)
        best, rows = torch.topk(scores, min(width, end - first), dim=1, sorted=False)
        return best, rows + first

    def wait(self, *tensors: Any) -> list[Any]:
        """What `best` gave, as arrays."""
        import torch

        with torch.cuda.stream(self._stream):
            return [tensor.cpu().numpy() for tensor in tensors]


class GpuScan:
    """A `Nominator` that scans all rows. Each of `copies` holds all of them, in one part or in a
    part on each of several devices; searches take turns at the copies.

    Nominates until what was left out must score less, whatever the rounding: exact, but where MOST
    nominees do not decide it, which needs as many passages of nearly one score.
    """

    finds_few = True

    def __init__(self, copies: Sequence[Sequence[Part]]) -> None:
        self.copies = copies
        self._free: queue.SimpleQueue[Sequence[Part]] = queue.SimpleQueue()
        for copy in copies:
            self._free.put(copy)
        first = copies[0]
        self._rows = sum(len(part.vectors) for part in first)
        self._error = ROUNDING + first[0].vectors.shape[1] * 2.0**-24

    def nominate(
        self, queries: Float32, depth: int, selected: int, allowed: RowMask | None
    ) -> list[Int64]:
        copy = self._free.get()
        try:
            found: list[Int64] = []
            for start in range(0, len(queries), QUERIES_AT_ONCE):
                some = queries[start : start + QUERIES_AT_ONCE]
                found += self._decided(copy, some, depth, selected, allowed)
            return found
        finally:
            self._free.put(copy)

    def _decided(
        self,
        copy: Sequence[Part],
        queries: Float32,
        depth: int,
        selected: int,
        allowed: RowMask | None,
    ) -> list[Int64]:
        """As many nominees of each query as decide which are the best `depth`."""
        import torch

        half = torch.from_numpy(queries).to(torch.float16)
        wanted = 2 * depth + SPARE
        most = min(selected, max(MOST, wanted))
        found: list[Int64] = [np.zeros(0, dtype=np.int64)] * len(queries)
        left = np.arange(len(queries))
        width = min(most, wanted)
        while left.size:
            scores, rows = _together(copy, half[left], width, allowed)
            undecided = []
            for i, line, nominated in zip(left.tolist(), scores, rows, strict=True):
                found[i] = nominated
                # What was left out scores no more than the last, and each may be wrong.
                if width < most and line[-1] >= line[depth - 1] - 2 * self._error - 1 / GRID:
                    undecided.append(i)
            left = np.array(undecided, dtype=np.int64)
            width = min(most, 4 * width)
        return found


def _together(
    copy: Sequence[Part], queries: Any, width: int, allowed: RowMask | None
) -> tuple[Float32, Int64]:
    """The `width` best of all parts, float32 and int64 (n, width), best first; all are allowed, as
    at least so many rows are.
    """
    asked = [part.best(queries, width, allowed) for part in copy]  # all devices work at once
    arrays = [part.wait(*tensors) for part, tensors in zip(copy, asked, strict=True)]
    scores, rows = (np.concatenate(column, axis=1) for column in zip(*arrays, strict=True))
    if len(copy) > 1:
        order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        scores, rows = (np.take_along_axis(array, order, axis=1) for array in (scores, rows))
    return scores.astype(np.float32), rows
