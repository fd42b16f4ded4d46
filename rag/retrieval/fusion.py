"""Many legs' hits into one list: each method is one pure function with its source.

All of them work row by row on `Hits` of the legs in the order (dense, sparse), count a row once,
give a row that a leg did not find that leg's contribution of nothing, and break ties by ascending
row. Scores are comparable between queries only where the docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rag.errors import InvalidRequest
from rag.types import NO_ROW, Float32, Hits

Fusion = Callable[[Sequence[Hits], int], Hits]
"""(one Hits per leg, k) -> Hits of depth k."""

DEFAULT: Mapping[str, Any] = {"method": "weighted", "dense_weight": 0.5}
METHODS = ("weighted", "rrf")


def make_fusion(reference: Mapping[str, Any]) -> Fusion:
    """The fusion that a manifest or a request names.

    `{"method": "weighted", "dense_weight": 0..1}` or `{"method": "rrf", "k": > 0,
    "dense_weight": 0..1}`; only `method` is required. Raises InvalidRequest.
    """
    options = dict(reference)
    method = options.pop("method", None)
    if method not in METHODS:
        raise InvalidRequest(f"fusion.method is {method!r}; use one of {', '.join(METHODS)}")
    known = {"weighted": {"dense_weight"}, "rrf": {"dense_weight", "k"}}[method]
    if unknown := sorted(set(options) - known):
        raise InvalidRequest(f"fusion.{unknown[0]} is not known to method '{method}'")
    weight = _number(options, "dense_weight", 0.5, low=0.0, high=1.0)
    weights = (weight, 1.0 - weight)
    if method == "rrf":
        k = _number(options, "k", 60.0, low=0.001, high=1e6)
        return lambda legs, depth: reciprocal_rank(legs, depth, weights=weights, k=k)
    return lambda legs, depth: weighted(legs, depth, weights=weights)


def reciprocal_rank(
    legs: Sequence[Hits], depth: int, *, weights: Sequence[float] = (0.5, 0.5), k: float = 60.0
) -> Hits:
    """Reciprocal rank fusion: sum over legs of weight · (k + 1) / (k + rank), ranks from 1.

    The factor k + 1 puts scores into 0..1, where 1 is first on every leg (weights adding to 1),
    which leaves the order of the published formula unchanged. Cormack, Clarke and Büttcher,
    SIGIR 2009.
    """
    contributions = []
    for hits in legs:
        ranks = np.arange(1, hits.rows.shape[1] + 1, dtype=np.float32)
        line = ((k + 1.0) / (k + ranks)).astype(np.float32)
        contributions.append(np.broadcast_to(line, hits.rows.shape))
    return _sum(legs, contributions, weights, depth)


def weighted(legs: Sequence[Hits], depth: int, *, weights: Sequence[float] = (0.5, 0.5)) -> Hits:
    """Convex combination of min–max normalised scores: sum of weight · (s - low) / (high - low).

    `high` is the query's best score on that leg; `low` its worst among the hits of that leg, so
    that scores lie in 0..1. A leg whose hits all score the same, or that has a single hit, gives
    1 to each of them: a lone keyword hit is a hit. Fox and Shaw, TREC-2 1994; Bruch, Gai and
    Ingber, ACM TOIS 2023.
    """
    contributions = []
    for hits in legs:
        found = hits.rows != NO_ROW
        scores = np.where(found, hits.scores, np.nan)
        with np.errstate(invalid="ignore"):
            high = np.where(found.any(1), np.nanmax(np.where(found, scores, -np.inf), 1), 0.0)
            low = np.where(found.any(1), np.nanmin(np.where(found, scores, np.inf), 1), 0.0)
        spread = (high - low)[:, None]
        scaled = np.where(
            spread > 0, (scores - low[:, None]) / np.where(spread > 0, spread, 1), 1.0
        )
        contributions.append(np.where(found, scaled, 0.0).astype(np.float32))
    return _sum(legs, contributions, weights, depth)


def _sum(
    legs: Sequence[Hits], contributions: Sequence[Float32], weights: Sequence[float], depth: int
) -> Hits:
    """Adds up contributions by row, query by query, and keeps the best `depth`."""
    queries = legs[0].rows.shape[0]
    rows = np.full((queries, depth), NO_ROW, dtype=np.int64)
    scores = np.full((queries, depth), -np.inf, dtype=np.float32)
    for q in range(queries):
        found = [hits.rows[q] != NO_ROW for hits in legs]
        merged = np.concatenate([hits.rows[q][f] for hits, f in zip(legs, found, strict=True)])
        if not merged.size:
            continue
        parts = [
            np.float32(weight) * part[q][f]
            for weight, part, f in zip(weights, contributions, found, strict=True)
        ]
        unique, place = np.unique(merged, return_inverse=True)
        total = np.zeros(unique.size, dtype=np.float32)
        np.add.at(total, place, np.concatenate(parts))
        best = np.lexsort((unique, -total))[:depth]
        rows[q, : best.size] = unique[best]
        scores[q, : best.size] = total[best]
    return Hits(rows, scores)


def _number(
    options: Mapping[str, Any], name: str, default: float, *, low: float, high: float
) -> float:
    value = options.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise InvalidRequest(f"fusion.{name} is {value!r}; use a number from {low:g} to {high:g}")
    return float(value)
