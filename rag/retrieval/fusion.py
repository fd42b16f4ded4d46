"""Many legs' hits into one list: each method is one pure function with its source.

All of them work row by row on `Hits` of the legs in the order (dense, sparse), count a row once,
give a row that a leg did not find the least that the leg gives, and break ties by ascending row.
Scores lie in 0..1; they are comparable between queries only where the docstring says so.

The default, 'feedback', also reads the passages that were found: see rag/retrieval/feedback.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rag.errors import InvalidRequest
from rag.index.topk import no_hits
from rag.retrieval.feedback import Feedback
from rag.types import NO_ROW, Float32, Hits

Fusion = Callable[[Sequence[Hits], int], Hits]
"""(one Hits per leg, k) -> Hits of depth k."""

DEFAULT: Mapping[str, Any] = {"method": "feedback"}
OPTIONS: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "feedback": {
        "keywords": (Feedback.keywords, 0.0, 10.0),
        "coverage": (Feedback.coverage, 0.0, 10.0),
        "feedback": (Feedback.feedback, 0.0, 10.0),
        "passages": (Feedback.passages, 1.0, 50.0),
        "by_terms": (Feedback.by_terms, 0.0, 10.0),
    },
    "weighted": {},
    "theoretical": {},
    "zscore": {},
    "distribution": {},
    "rrf": {"k": (60.0, 0.001, 1e6)},
}
"""Options of each method beside `dense_weight`: default, lowest, highest."""
METHODS = tuple(OPTIONS)


def make_fusion(reference: Mapping[str, Any]) -> Fusion | Feedback:
    """The fusion that a manifest or a request names, as `{"method": …, option: number, …}`.

    Methods and options are those of OPTIONS, and `dense_weight` (0 to 1, default 0.5) for all;
    only `method` is required. Raises InvalidRequest.
    """
    given = dict(reference)
    method = given.pop("method", None)
    if method not in METHODS:
        raise InvalidRequest(f"fusion.method is {method!r}; use one of {', '.join(METHODS)}")
    limits = {"dense_weight": (0.5, 0.0, 1.0), **OPTIONS[method]}
    if unknown := sorted(set(given) - set(limits)):
        raise InvalidRequest(f"fusion.{unknown[0]} is not known to method '{method}'")
    options = {name: _number(given, name, *limits[name]) for name in limits}
    if method == "feedback":
        passages = options.pop("passages")
        if passages != int(passages):
            raise InvalidRequest(f"fusion.passages is {passages}; use a whole number")
        return Feedback(
            dense_weight=options["dense_weight"],
            keywords=options["keywords"],
            coverage=options["coverage"],
            feedback=options["feedback"],
            passages=int(passages),
            by_terms=options["by_terms"],
        )
    dense = options.pop("dense_weight")
    function = {
        "weighted": weighted,
        "theoretical": theoretical,
        "zscore": zscore,
        "distribution": distribution,
        "rrf": reciprocal_rank,
    }[method]
    return lambda legs, depth: function(legs, depth, weights=(dense, 1.0 - dense), **options)


def reciprocal_rank(
    legs: Sequence[Hits], depth: int, *, weights: Sequence[float] = (0.5, 0.5), k: float = 60.0
) -> Hits:
    """Reciprocal rank fusion: sum over legs of weight · (k + 1) / (k + rank), ranks from 1.

    The factor k + 1 puts scores into 0..1, where 1 is first on every leg (weights adding to 1),
    which leaves the order of the published formula unchanged. Cormack, Clarke and Büttcher,
    SIGIR 2009.
    """
    parts = []
    for hits in legs:
        ranks = np.arange(1, hits.rows.shape[1] + 1, dtype=np.float32)
        line = ((k + 1.0) / (k + ranks)).astype(np.float32)
        parts.append(np.broadcast_to(line, hits.rows.shape))
    return _sum(legs, parts, weights, depth)


def weighted(legs: Sequence[Hits], depth: int, *, weights: Sequence[float] = (0.5, 0.5)) -> Hits:
    """Convex combination of min–max normalised scores: sum of weight · (s - low) / (high - low).

    `high` is the query's best score on that leg; `low` its worst among the hits of that leg. A leg
    whose hits all score the same, or that has a single hit, gives 1 to each of them: a lone
    keyword hit is a hit. Fox and Shaw, TREC-2 1994; Bruch, Gai and Ingber, ACM TOIS 2023.
    """
    parts = [_scaled(hits, _lowest(hits)) for hits in legs]
    return _sum(legs, parts, weights, depth)


def theoretical(
    legs: Sequence[Hits],
    depth: int,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    least: Sequence[float] = (-1.0, 0.0),
) -> Hits:
    """`weighted` with the least score that a leg can give, instead of the least that it gave.

    A cosine is never below -1 and BM25 never below 0 ('least', by leg), so that the weakest hit
    keeps what it is worth. "TM2C2" of Bruch, Gai and Ingber, ACM TOIS 2023.
    """
    parts = []
    for hits, low in zip(legs, least, strict=True):
        parts.append(_scaled(hits, np.full(len(hits.rows), low, dtype=np.float32)))
    return _sum(legs, parts, weights, depth)


def zscore(legs: Sequence[Hits], depth: int, *, weights: Sequence[float] = (0.5, 0.5)) -> Hits:
    """Sum of weight · z, with z = (s - mean) / deviation over the query's hits of that leg.

    A row that a leg did not find has that leg's lowest z there; a leg whose hits all score the
    same says nothing. The sum is put into 0..1 by the logistic function. Montague and Aslam,
    CIKM 2001.
    """
    parts, lowest = [], np.zeros(len(legs[0].rows), dtype=np.float32)
    for hits, weight in zip(legs, weights, strict=True):
        mean, deviation = _moments(hits)
        z = np.where(hits.rows == NO_ROW, 0.0, hits.scores - mean) / deviation
        least = z.min(axis=1, initial=0.0)
        lowest += np.float32(weight) * least
        parts.append((z - least[:, None]).astype(np.float32))
    return _sum(
        legs, parts, weights, depth, finish=lambda s: 1.0 / (1.0 + np.exp(-(s + lowest[:, None])))
    )


def distribution(
    legs: Sequence[Hits], depth: int, *, weights: Sequence[float] = (0.5, 0.5)
) -> Hits:
    """Distribution-based: sum of weight · (s - (mean - 3 d)) / 6 d, cut to 0..1, d the deviation.

    The range is where a normal distribution has nearly all of its mass, so that one outlier does
    not press the others together. A leg whose hits all score the same gives 1/2 to each. Mazzeschi,
    "Distribution-based score fusion", 2023.
    """
    parts = []
    for hits in legs:
        mean, deviation = _moments(hits)
        z = np.where(hits.rows == NO_ROW, 0.0, hits.scores - mean) / deviation
        parts.append(np.clip(0.5 + z / 6.0, 0.0, 1.0).astype(np.float32))
    return _sum(legs, parts, weights, depth)


def _lowest(hits: Hits) -> Float32:
    """Each query's worst score; 0 without hits."""
    worst = np.where(hits.rows == NO_ROW, np.inf, hits.scores).min(axis=1, initial=np.inf)
    return np.where(np.isinf(worst), 0.0, worst).astype(np.float32)


def _scaled(hits: Hits, low: Float32) -> Float32:
    """(s - low) / (best - low), 1 where that is 0 / 0, and at least 0."""
    found = hits.rows != NO_ROW
    spread = np.where(found, hits.scores, -np.inf).max(axis=1, initial=-np.inf) - low
    above = np.where(found, hits.scores, 0.0) - low[:, None]
    some = (spread > 0)[:, None]
    scaled = np.where(some, above / np.where(some, spread[:, None], 1.0), 1.0)
    return np.maximum(scaled, 0.0).astype(np.float32)


def _moments(hits: Hits) -> tuple[Float32, Float32]:
    """Mean and deviation (never 0) of each query's scores, as columns."""
    found = hits.rows != NO_ROW
    count = np.maximum(found.sum(axis=1, keepdims=True), 1)
    scores = np.where(found, hits.scores, 0.0).astype(np.float64)
    mean = scores.sum(axis=1, keepdims=True) / count
    square = (np.where(found, scores - mean, 0.0) ** 2).sum(axis=1, keepdims=True) / count
    deviation = np.sqrt(square)
    flat = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    return mean.astype(np.float32), np.where(flat, np.inf, deviation).astype(np.float32)


def _sum(
    legs: Sequence[Hits],
    parts: Sequence[Float32],
    weights: Sequence[float],
    depth: int,
    *,
    finish: Callable[[Float32], Any] | None = None,
) -> Hits:
    """Adds up what the legs give to each row, and keeps the best `depth` of every query.

    `finish` makes sums (queries, width) into scores, before they are ranked.
    """
    queries = len(legs[0].rows)
    fused = no_hits(queries, depth)
    rows = np.concatenate([hits.rows for hits in legs], axis=1)
    if rows.size == 0:
        return fused
    shares = [np.float32(w) * part for w, part in zip(weights, parts, strict=True)]
    scores = np.concatenate(shares, axis=1)
    by_row = np.argsort(rows, axis=1, kind="stable")
    rows = np.take_along_axis(rows, by_row, axis=1)
    scores = np.take_along_axis(scores, by_row, axis=1)
    total = scores.copy()
    for shift in range(1, len(legs)):  # a row stands once in each leg, so side by side here
        same = rows[:, shift:] == rows[:, :-shift]
        total[:, :-shift] += np.where(same, scores[:, shift:], 0)
    if finish is not None:
        total = finish(total).astype(np.float32)
    total[rows == NO_ROW] = -np.inf
    total[:, 1:][rows[:, 1:] == rows[:, :-1]] = -np.inf
    best = np.argsort(-total, axis=1, kind="stable")[:, :depth]
    kept = np.take_along_axis(total, best, axis=1)
    fused.scores[:, : best.shape[1]] = kept
    fused.rows[:, : best.shape[1]] = np.where(
        np.isneginf(kept), NO_ROW, np.take_along_axis(rows, best, axis=1)
    )
    return fused


def _number(
    options: Mapping[str, Any], name: str, default: float, low: float, high: float
) -> float:
    value = options.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise InvalidRequest(f"fusion.{name} is {value!r}; use a number from {low:g} to {high:g}")
    return float(value)
