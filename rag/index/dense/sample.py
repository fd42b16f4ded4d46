"""Queries to measure an index with, their exact answers, and what an index makes of them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from rag.index.dense.blocks import ROWS_AT_ONCE, blocks
from rag.index.dense.factory import faiss
from rag.index.dense.leg import DenseLeg
from rag.types import NO_ROW, Float32, Int64

QUERIES = 256
DEPTH = 100
TIMED = 100
TIMED_EXACTLY = 5
STEP = 0.5
_SEED = 1


class Sample(NamedTuple):
    """float32 (n, d) queries, the int64 (n, 100) rows of their best passages by exact search over
    the float32 vectors (-1 where there are fewer), and in words where the queries came from.
    """

    queries: Float32
    truth: Int64
    how: str


def take_sample(
    vectors: Float32, queries: Float32 | None = None, *, threads: int | None = None
) -> Sample:
    """`queries` with their exact answers; without, at most 256 vectors made from passages.

    Each is an evenly spaced passage moved half the way along the difference of two others, and
    scaled to norm 1: as far from its passage as questions tend to be, in directions in which the
    corpus itself varies. The same vectors give the same sample.
    """
    how = "queries that were given"
    if queries is None:
        queries = _moved(vectors)
        how = (
            f"{len(queries)} passages, each moved {STEP:g} of the way along the difference of two"
            " others"
        )
    return Sample(queries, exact_rows(vectors, queries, DEPTH, threads=threads), how)


def exact_rows(vectors: Float32, queries: Float32, k: int, *, threads: int | None = None) -> Int64:
    """int64 (n, k): the rows of highest inner product, -1 past the last; in no promised order of
    ties. `vectors` is read once, in blocks.
    """
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start, block in blocks(vectors):
        scores, rows = faiss.knn(queries, block, min(k, len(block)), faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows + start)
    heap.finalize()
    found: Int64 = heap.I
    return found


def recall(leg: DenseLeg, sample: Sample, k: int) -> float:
    """The share of the exact `k` best that `leg` finds, over all queries; 1 without any."""
    rows = leg.search(sample.queries, k, None).rows
    wanted = found = 0
    for truth, got in zip(sample.truth[:, :k], rows, strict=True):
        truth = truth[truth != NO_ROW]
        wanted += len(truth)
        found += int(np.isin(truth, got).sum())
    return found / wanted if wanted else 1.0


def measure(leg: DenseLeg, sample: Sample) -> dict[str, Any]:
    """Recall at 10 and at 100, and milliseconds of one query at a time at depth 10."""
    line: dict[str, Any] = {f"recall_at_{k}": round(recall(leg, sample, k), 4) for k in (10, DEPTH)}
    seconds = []
    for i in range(min(TIMED, len(sample.queries))):
        began = time.perf_counter()
        leg.search(sample.queries[i : i + 1], 10, None)
        seconds.append(time.perf_counter() - began)
    return line | _percentiles(seconds)


def measure_exact(
    vectors: Float32, sample: Sample, *, threads: int | None = None
) -> list[dict[str, Any]]:
    """The line of a scan of the float32 vectors, which every other is compared with."""
    if len(vectors) == 0:
        return []
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    block = np.ascontiguousarray(vectors[:ROWS_AT_ONCE])
    seconds = []
    for i in range(min(TIMED_EXACTLY, len(sample.queries))):
        began = time.perf_counter()
        faiss.knn(sample.queries[i : i + 1], block, 10, faiss.METRIC_INNER_PRODUCT)
        seconds.append((time.perf_counter() - began) * len(vectors) / len(block))
    line: dict[str, Any] = {"index": "scan of float32", "search": {}}
    line |= {"recall_at_10": 1.0, "recall_at_100": 1.0, **_percentiles(seconds)}
    return [line | {"bytes_per_passage": 4.0 * vectors.shape[1], "build_s": 0.0}]


def _moved(vectors: Float32) -> Float32:
    rows = len(vectors)
    count = min(QUERIES, rows)
    if count == 0:
        return np.zeros((0, vectors.shape[1]), dtype=np.float32)
    at = np.linspace(0, rows - 1, count).astype(np.int64)
    pairs = np.random.default_rng(_SEED).integers(0, rows, size=(2, count))
    moved = vectors[at] + np.float32(STEP) * (vectors[pairs[0]] - vectors[pairs[1]])
    norms = np.linalg.norm(moved, axis=1, keepdims=True)
    queries: Float32 = np.where(norms > 0, moved / np.maximum(norms, 1e-12), vectors[at])
    return np.ascontiguousarray(queries, dtype=np.float32)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3 if seconds else (0.0, 0.0)
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}
