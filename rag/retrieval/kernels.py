"""The compiled inner loops of feedback fusion. How they are compiled: rag/index/kernels.py.

`python -m rag.retrieval.kernels` fills the cache ahead of time, for this room and the index's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from rag.index import kernels as index_kernels
from rag.index.kernels import kernel, readonly
from rag.types import Float32, Int64

_MATRIX = types.Array(types.float32, 2, "C", readonly=True)
_FLOATS = readonly(types.float32)
_IDS = readonly(types.int32)
_STARTS = readonly(types.int64)


@kernel(_MATRIX, _FLOATS, types.float32[::1], reorder=True)
def inner_products(vectors: Float32, vector: Float32, out: Float32) -> None:
    """out[i] = vectors[i] · vector."""
    for i in range(vectors.shape[0]):
        total = np.float32(0.0)
        for j in range(vectors.shape[1]):
            total += vectors[i, j] * vector[j]
        out[i] = total


@kernel(types.int32[::1], _IDS, types.int32[::1])
def place_terms(slots: Any, terms: Any, places: Any) -> None:
    """Hashes terms into `slots`, which are -1 where free, by linear probing.

    There are a power of two of them, more than terms. places[i] is the slot of terms[i].
    """
    last = slots.size - 1
    for i in range(terms.size):
        at = (terms[i] * 2654435761 >> 8) & last
        while slots[at] != -1 and slots[at] != terms[i]:
            at = (at + 1) & last
        slots[at] = terms[i]
        places[i] = at


@kernel(
    _IDS, _FLOATS, _FLOATS, _STARTS, types.int64, _IDS, _FLOATS, types.float32[:, ::1]
)  # fmt: skip
def sum_terms(
    slots: Any,
    values: Float32,
    units: Float32,
    starts: Int64,
    first: int,
    terms: Any,
    weights: Float32,
    out: Float32,
) -> None:
    """Adds up, over the terms of passage first + i, what their slots hold; others add nothing.

    out[0, i] is the sum of weight · value, out[1, i] that of units. Passage p has
    terms[starts[p]:starts[p + 1]].
    """
    last = slots.size - 1
    for i in range(out.shape[1]):
        total = np.float32(0.0)
        count = np.float32(0.0)
        for j in range(starts[first + i], starts[first + i + 1]):
            at = (terms[j] * 2654435761 >> 8) & last
            while slots[at] != -1 and slots[at] != terms[j]:
                at = (at + 1) & last
            if slots[at] != -1:
                total += weights[j] * values[at]
                count += units[at]
        out[0, i] = total
        out[1, i] = count


@kernel(_FLOATS, types.float32, types.int64[::1], types.float32[::1])
def pick_best(scores: Float32, temperature: float, picked: Int64, weights: Float32) -> None:
    """The best of `scores`, ties by position, and their softmax weights at `temperature`."""
    taken = np.zeros(scores.size, dtype=np.bool_)
    total = np.float32(0.0)
    for place in range(picked.size):
        best = -1
        for i in range(scores.size):
            if not taken[i] and (best < 0 or scores[i] > scores[best]):
                best = i
        taken[best] = True
        picked[place] = best
        weights[place] = np.exp((scores[best] - scores[picked[0]]) / temperature)
        total += weights[place]
    for place in range(picked.size):
        weights[place] /= total


@kernel(_FLOATS, types.float32, types.float32[::1])
def add_scaled(values: Float32, weight: float, out: Float32) -> None:
    """Adds weight · (values - lowest) / (highest - lowest); nothing where all are the same."""
    low = values.min()
    spread = values.max() - low
    if spread > 0:
        for i in range(out.size):
            out[i] += weight * (values[i] - low) / spread


@kernel(
    _MATRIX, _STARTS, _IDS, _FLOATS, types.int64, types.int64,
    _FLOATS, _IDS, _FLOATS, _FLOATS, types.float32[:, ::1],
)  # fmt: skip
def observe(
    vectors: Float32,
    term_starts: Int64,
    terms: Any,
    weights: Float32,
    first: int,
    end: int,
    query: Float32,
    asked: Any,
    counts: Float32,
    idf: Float32,
    seen: Float32,
) -> None:
    """What passages first..end say of one query: (3, passages) cosine, BM25, coverage.

    Coverage is the share of the query's idf whose terms a passage has; 0 without any known term.
    """
    inner_products(vectors[first:end], query, seen[0])
    seen[1:] = 0
    total = idf.sum()
    if asked.size == 0:
        return
    size = 4
    while size < 2 * asked.size:
        size *= 2
    slots = np.full(size, -1, dtype=np.int32)
    places = np.empty(asked.size, dtype=np.int32)
    place_terms(slots, asked, places)
    values = np.zeros(size, dtype=np.float32)
    units = np.zeros(size, dtype=np.float32)
    for i in range(asked.size):
        values[places[i]] = counts[i]
        units[places[i]] = idf[i] / total
    sum_terms(slots, values, units, term_starts, first, terms, weights, seen[1:])


@kernel(types.int32[::1], types.float32[::1], _STARTS, _IDS, _FLOATS, _STARTS, _FLOATS)
def add_passages(
    slots: Any,
    values: Float32,
    starts: Int64,
    terms: Any,
    weights: Float32,
    picked: Int64,
    shares: Float32,
) -> None:
    """Adds the terms of the picked passages, as unit vectors times their shares, to `values`."""
    for i in range(picked.size):
        a, b = starts[picked[i]], starts[picked[i] + 1]
        places = np.empty(b - a, dtype=np.int32)
        place_terms(slots, terms[a:b], places)
        norm = np.sqrt((weights[a:b] * weights[a:b]).sum())
        if norm > 0:
            for j in range(b - a):
                values[places[j]] += shares[i] * weights[a + j] / norm


@kernel(_MATRIX, _STARTS, _IDS, _FLOATS, types.int64, _STARTS, _FLOATS, types.float32[:, ::1])
def resemble(
    vectors: Float32,
    term_starts: Int64,
    terms: Any,
    weights: Float32,
    first: int,
    picked: Int64,
    shares: Float32,
    seen: Float32,
) -> None:
    """How like the picked passages each one from `first` on is: (2, passages), by vector, by terms.

    The weighted mean of cosines with them; `shares` adds to 1. seen[2] is scratch.
    """
    centre = np.zeros(vectors.shape[1], dtype=np.float32)
    entries = 0
    for i in range(picked.size):
        entries += term_starts[picked[i] + 1] - term_starts[picked[i]]
        for j in range(centre.size):
            centre[j] += shares[i] * vectors[picked[i], j]
    inner_products(vectors[first : first + seen.shape[1]], centre, seen[0])
    size = 4
    while size < 2 * entries:
        size *= 2
    slots = np.full(size, -1, dtype=np.int32)
    values = np.zeros(size, dtype=np.float32)
    add_passages(slots, values, term_starts, terms, weights, picked, shares)
    sum_terms(slots, values, values, term_starts, first, terms, weights, seen[1:])
    for i in range(seen.shape[1]):
        a, b = term_starts[first + i], term_starts[first + i + 1]
        norm = np.sqrt((weights[a:b] * weights[a:b]).sum())
        if norm > 0:
            seen[1, i] /= norm


def warm() -> None:
    """Runs every kernel once, so that the first request finds them loaded."""
    one, seen = np.ones(1, dtype=np.float32), np.zeros((3, 1), dtype=np.float32)
    matrix, term, zero = one.reshape(1, 1), np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int64)
    starts = np.array([0, 1], dtype=np.int64)
    observe(matrix, starts, term, one, 0, 1, one, term, one, one, seen)
    resemble(matrix, starts, term, one, 0, zero, one, seen)
    pick_best(one, 1.0, zero, one.copy())
    add_scaled(one, 1.0, one.copy())


if __name__ == "__main__":
    index_kernels.warm()
    warm()
