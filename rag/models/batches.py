"""Texts of like length together, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rag.types import Int64


def length_batches(
    lengths: Int64, max_batch_tokens: int, *, run_tokens: int | None = None
) -> Iterator[Int64]:
    """Positions into `lengths` (n,), each once, the longest first, batch by batch.

    A batch costs its size times its longest text, at most `max_batch_tokens`; a text longer than
    that goes alone. Equal lengths keep their order. With `run_tokens`, what one run costs beside
    its tokens, in tokens, batches are cut further where that saves more padding than it costs.
    """
    for batch in _bounded(_longest_first(lengths), lengths, max_batch_tokens):
        if run_tokens is None:
            yield batch
        else:
            yield from np.split(batch, _cuts(lengths[batch], run_tokens))


def packed_batches(lengths: Int64, max_batch_tokens: int, run_tokens: int) -> Iterator[Int64]:
    """Positions into `lengths` (n,), each once, the longest first, for runs that have no padding.

    Runs have about `run_tokens` tokens each, and equally many: their number is the tokens' sum over
    `run_tokens`, rounded. A run's size times its longest text is at most `max_batch_tokens` all the
    same, since attention has padding; a text longer than that goes alone.
    """
    if not len(lengths):
        return
    order = _longest_first(lengths)
    until = np.cumsum(lengths[order])
    runs = max(1, round(int(until[-1]) / run_tokens))
    cuts = np.searchsorted(until, until[-1] * np.arange(1, runs) / runs)
    for run in np.split(order, cuts):
        yield from _bounded(run, lengths, max_batch_tokens)


def attention_rows(lengths: Int64, places: int) -> Int64:
    """Rows in which attention sees the tokens of a run: int64 (rows, width), the number of a token
    in the run, text after text, or -1 for none.

    A row holds several whole texts, side by side, or one. It has `places` places, or as many as the
    longest text has tokens: attention computes the square of that, and a row costs some work of its
    own. First fit: best for texts that come longest first. With 0 places each text has a row to
    itself. `lengths` (n,) are positive.
    """
    width = max(int(lengths.max()), min(places, int(lengths.sum())))
    used: list[int] = []
    where = []
    for length in lengths.tolist():
        room = (i for i, taken in enumerate(used) if places and taken + length <= width)
        row = next(room, len(used))
        if row == len(used):
            used.append(0)
        where.append(row * width + used[row])
        used[row] += length
    tokens = np.arange(int(lengths.sum()), dtype=np.int64)
    firsts = np.cumsum(lengths) - lengths
    rows = np.full(len(used) * width, -1, dtype=np.int64)
    rows[tokens + np.repeat(np.array(where) - firsts, lengths)] = tokens
    return rows.reshape(-1, width)


def _longest_first(lengths: Int64) -> Int64:
    """All positions; equal lengths keep their order."""
    return np.argsort(-lengths, kind="stable").astype(np.int64)


def _bounded(order: Int64, lengths: Int64, max_batch_tokens: int) -> Iterator[Int64]:
    """`order`, the longest first, in parts whose size times their longest is within the budget, or
    that have one text.
    """
    start = 0
    while start < len(order):
        size = max(1, max_batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _cuts(lengths: Int64, run_tokens: int) -> list[int]:
    """Where to cut descending `lengths` for the least sum over runs of size · longest + run_tokens.

    Optimal, by dynamic programming over the places where the length changes.
    """
    starts = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist()]
    longest = lengths[starts].tolist()
    ends = [*starts[1:], len(lengths)]
    best, before = [0.0], [0]
    for last, end in enumerate(ends):
        costs = [
            best[first] + run_tokens + longest[first] * (end - starts[first])
            for first in range(last + 1)
        ]
        cheapest = min(range(last + 1), key=costs.__getitem__)
        best.append(costs[cheapest])
        before.append(cheapest)
    cuts, place = [], before[len(ends)]
    while place > 0:
        cuts.append(starts[place])
        place = before[place]
    return cuts[::-1]
