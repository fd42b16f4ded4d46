"""The compiled inner loops of an index: term lookup, posting lists, top k, inner products, and
where the values of a row lie.

How they are compiled: rag/compiled/. They release the GIL and use no state but their arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rag.compiled.kernel import kernel, reads, writes
from rag.types import Float32, Int64, RowMask

LINE = 16
"""Numbers of 32 bits in a cache line."""
NUMBER, NUMBER_64, STRING, LARGE_STRING, LIST, BINARY = range(6)
"""Kinds of columns (see `locate_values`); BINARY + w is binary of w bytes."""


@kernel(
    reads(np.uint8),
    reads(np.int64),
    reads(np.uint8),
    reads(np.int64),
    writes(np.int64),
)
def find_terms(blob: Any, offsets: Int64, wanted: Any, wanted_offsets: Int64, found: Int64) -> None:
    """Binary search of each wanted term among sorted ones; -1 where it is not.

    Term i is the bytes blob[offsets[i]:offsets[i + 1]]; the same of `wanted`. int64 ids go to
    `found`.
    """
    for i in range(found.size):
        start = wanted_offsets[i]
        length = wanted_offsets[i + 1] - start
        low = 0
        high = offsets.size - 1
        found[i] = -1
        while low < high:
            middle = (low + high) // 2
            there = offsets[middle]
            size = offsets[middle + 1] - there
            common = min(size, length)
            j = 0
            while j < common and blob[there + j] == wanted[start + j]:
                j += 1
            if j == common and size == length:
                found[i] = middle
                break
            less = blob[there + j] < wanted[start + j] if j < common else size < length
            if less:
                low = middle + 1
            else:
                high = middle


@kernel(
    reads(np.int32),
    reads(np.int32),
    reads(np.int32),
    writes(np.int64),
    writes(np.int32),
    writes(np.int32),
)
def group_by_term(
    terms: Any, counts: Any, sizes: Any, heads: Int64, rows_out: Any, counts_out: Any
) -> None:
    """Turns postings by passage into postings by term; rows come out ascending (a counting sort).

    The postings of one passage follow those of the one before; `sizes` says how many each has.
    `heads` is where each term's postings start, and is used up.
    """
    position = 0
    for row in range(sizes.size):
        for _ in range(sizes[row]):
            head = heads[terms[position]]
            rows_out[head] = row
            counts_out[head] = counts[position]
            heads[terms[position]] = head + 1
            position += 1


@kernel(writes(np.int64), writes(np.float32), np.int64, np.int64)
def _sift_down(rows: Int64, scores: Float32, root: int, size: int) -> None:
    """Restores a heap with the worst hit (lowest score, then highest row) at its root."""
    row = rows[root]
    score = scores[root]
    while True:
        child = 2 * root + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            scores[other] < scores[child]
            or (scores[other] == scores[child] and rows[other] > rows[child])
        ):
            child = other
        if score < scores[child] or (score == scores[child] and row > rows[child]):
            break
        rows[root] = rows[child]
        scores[root] = scores[child]
        root = child
    rows[root] = row
    scores[root] = score


@kernel(writes(np.int64), writes(np.float32), np.int64)
def sort_hits(rows: Int64, scores: Float32, size: int) -> None:
    """Puts the first `size` hits in order, best first: descending score, then ascending row."""
    for root in range(size // 2 - 1, -1, -1):
        _sift_down(rows, scores, root, size)
    for last in range(size - 1, 0, -1):
        row = rows[0]
        score = scores[0]
        rows[0] = rows[last]
        scores[0] = scores[last]
        rows[last] = row
        scores[last] = score
        _sift_down(rows, scores, 0, last)


@kernel(
    reads(np.int64),
    reads(np.int32),
    reads(np.float32),
    reads(np.int64),
    reads(np.int64),
    reads(np.float32),
    reads(np.bool_),
    writes(np.float32),
    writes(np.int32),
    writes(np.int64, 2),
    writes(np.float32, 2),
)
def search_postings(
    indptr: Int64,
    posting_rows: Any,
    posting_scores: Float32,
    terms: Int64,
    pointers: Int64,
    base: Float32,
    allowed: RowMask,
    sums: Float32,
    touched: Any,
    out_rows: Int64,
    out_scores: Float32,
) -> None:
    """Adds up the postings of each query's terms and keeps the best k rows, best first.

    Query q has the term ids terms[pointers[q]:pointers[q + 1]], ascending (repeats count again,
    negatives are skipped) and the score base[q] beside them. An empty `allowed` allows every row.
    `sums` (rows,) must be -inf everywhere, which means untouched, and is left so; `touched`
    (rows,) is scratch. Only the hits are written to the two (n, k) outputs.
    """
    untouched = np.float32(-np.inf)
    masked = allowed.size > 0
    k = out_rows.shape[1]
    for query in range(pointers.size - 1):
        count = 0
        at = pointers[query]
        end = pointers[query + 1]
        while at < end:
            term = terms[at]
            weight = np.float32(0.0)
            while at < end and terms[at] == term:
                weight += np.float32(1.0)
                at += 1
            if term < 0:
                continue
            for i in range(indptr[term], indptr[term + 1]):
                row = posting_rows[i]
                if masked and not allowed[row]:
                    continue
                before = sums[row]
                if before == untouched:
                    touched[count] = row
                    count += 1
                    sums[row] = weight * posting_scores[i]
                else:
                    sums[row] = before + weight * posting_scores[i]
        rows = out_rows[query]
        scores = out_scores[query]
        size = 0
        for i in range(count):
            row = touched[i]
            score = sums[row] + base[query]
            sums[row] = untouched
            if size < k:
                rows[size] = row
                scores[size] = score
                size += 1
                if size == k:
                    for root in range(k // 2 - 1, -1, -1):
                        _sift_down(rows, scores, root, k)
            elif k > 0 and (score > scores[0] or (score == scores[0] and row < rows[0])):
                rows[0] = row
                scores[0] = score
                _sift_down(rows, scores, 0, k)
        sort_hits(rows, scores, size)


@kernel(reads(np.float32, 2), reads(np.int64), writes(np.float32))
def fetch_vectors(vectors: Float32, places: Int64, out: Float32) -> None:
    """Brings vectors[places] into the processor's caches; out[i] becomes some number.

    A number of each cache line is read, which takes so few steps that many lines are under way at
    once: a loop that computes with them waits for few at a time.
    """
    for i in range(out.size):
        some = np.float32(0.0)
        for j in range(0, vectors.shape[1], LINE):
            some += vectors[places[i], j]
        out[i] = some


@kernel(
    reads(np.float32, 2),
    reads(np.int64),
    reads(np.float32),
    np.float64,
    writes(np.float32),
    reorder=True,
)
def rounded_products(
    vectors: Float32, places: Int64, query: Float32, grid: float, out: Float32
) -> None:
    """out[i] = vectors[places[i]] · query in float64, rounded to a multiple of 1 / grid."""
    wide = query.astype(np.float64)
    for i in range(out.size):
        place = places[i]
        total = 0.0
        for j in range(wide.size):
            total += vectors[place, j] * wide[j]
        out[i] = np.rint(total * grid) / grid


@kernel(
    reads(np.float32, 2),
    reads(np.int64),
    reads(np.int64),
    reads(np.int64),
    reads(np.float32, 2),
    np.float64,
    writes(np.int64, 2),
    writes(np.float32, 2),
)
def rank_nominees(
    vectors: Float32,
    places: Int64,
    rows: Int64,
    starts: Int64,
    queries: Float32,
    grid: float,
    out_rows: Int64,
    out_scores: Float32,
) -> None:
    """Scores each query's nominees as `rounded_products` does, and keeps the best, best first.

    Query q has the nominees rows[starts[q]:starts[q + 1]], each once; nominee i has the vector
    vectors[places[i]]. Only the hits are written to the two (n, k) outputs.
    """
    for query in range(starts.size - 1):
        first = starts[query]
        end = starts[query + 1]
        scores = np.empty(end - first, dtype=np.float32)
        fetch_vectors(vectors, places[first:end], scores)
        rounded_products(vectors, places[first:end], queries[query], grid, scores)
        found = np.empty(end - first, dtype=np.int64)
        for i in range(found.size):
            found[i] = rows[first + i]
        sort_hits(found, scores, found.size)
        for i in range(min(found.size, out_rows.shape[1])):
            out_rows[query, i] = found[i]
            out_scores[query, i] = scores[i]


@kernel(
    reads(np.int64, 2),
    reads(np.float32, 2),
    reads(np.int64, 2),
    writes(np.int64, 2),
    writes(np.float32, 2),
)
def find_places(
    rows: Int64, scores: Float32, wanted: Int64, out: Int64, out_scores: Float32
) -> None:
    """out[i, j] = where wanted[i, j] stands in rows[i], with its score, or -1; -1 is no row."""
    for i in range(wanted.shape[0]):
        for j in range(wanted.shape[1]):
            out[i, j] = -1
            row = wanted[i, j]
            if row < 0:
                continue
            for place in range(rows.shape[1]):
                if rows[i, place] == row:
                    out[i, j] = place
                    out_scores[i, j] = scores[i, place]
                    break


@kernel(reads(np.int32), np.int64, np.int64, writes(np.int64))
def read_word(words: Any, at: int, size: int, out: Int64) -> None:
    """out[0] = the integer of 32 or 64 bits (`size`) that begins at words[at]."""
    if size == 32:
        out[0] = words[at]
    else:
        out[0] = (np.int64(words[at]) & 0xFFFFFFFF) | (np.int64(words[at + 1]) << 32)


@kernel(
    reads(np.int32),
    reads(np.int64),
    reads(np.int64, 3),
    reads(np.int64),
    reads(np.int64),
    reads(np.int64),
    writes(np.int64),
    writes(np.int64, 3),
)
def locate_values(
    words: Any,
    first_rows: Int64,
    layout: Int64,
    kinds: Int64,
    columns: Int64,
    rows: Int64,
    batches: Int64,
    out: Int64,
) -> None:
    """Where an Arrow file has the values of `rows` (n,) in `columns` (c,): out (c, n, 2).

    `words` is the file; batch b has the rows from first_rows[b] on, and layout[b, column] says
    where its buffers are: the byte of its validity (-1: all valid), the word of its numbers or
    offsets, the byte of its data. out[c, i] is a number and whether it is one, of a string or
    binary the bytes where it begins and ends, of a list the same among the values of its batch,
    which is batches[i]. Rows and columns must be there.
    """
    value = np.empty(1, dtype=np.int64)
    for i in range(rows.size):
        low = 0
        high = first_rows.size - 1
        while high - low > 1:
            middle = (low + high) // 2
            if first_rows[middle] <= rows[i]:
                low = middle
            else:
                high = middle
        batches[i] = low
        row = rows[i] - first_rows[low]
        for c in range(columns.size):
            kind = kinds[columns[c]]
            valid = layout[low, columns[c], 0]
            at = layout[low, columns[c], 1]
            data = layout[low, columns[c], 2]
            if kind >= BINARY:
                out[c, i, 0] = data + row * (kind - BINARY)
                out[c, i, 1] = out[c, i, 0] + (kind - BINARY)
                continue
            size = 64 if kind in (NUMBER_64, LARGE_STRING) else 32
            wide = size // 32
            read_word(words, at + row * wide, size, value)
            out[c, i, 0] = value[0]
            if kind in (NUMBER, NUMBER_64):
                out[c, i, 1] = 1
                if valid >= 0:
                    bit = valid * 8 + row
                    out[c, i, 1] = (words[bit // 32] >> (bit % 32)) & 1
                continue
            read_word(words, at + (row + 1) * wide, size, value)
            out[c, i, 1] = value[0]
            if kind != LIST:
                out[c, i, 0] += data
                out[c, i, 1] += data


def warm() -> None:
    """Runs every kernel once, so that the first request finds them loaded."""
    bytes_ = np.frombuffer(b"a", dtype=np.uint8)
    offsets = np.array([0, 1], dtype=np.int64)
    found = np.empty(1, dtype=np.int64)
    find_terms(bytes_, offsets, bytes_, offsets, found)
    one = np.zeros(1, dtype=np.int32)
    group_by_term(one, one, one + 1, np.zeros(1, dtype=np.int64), one.copy(), one.copy())
    search_postings(
        offsets,
        one,
        np.ones(1, dtype=np.float32),
        found,
        offsets,
        np.zeros(1, dtype=np.float32),
        np.zeros(0, dtype=np.bool_),
        np.full(1, -np.inf, dtype=np.float32),
        one.copy(),
        np.empty((1, 1), dtype=np.int64),
        np.empty((1, 1), dtype=np.float32),
    )
    single, row = np.ones((1, 1), dtype=np.float32), np.zeros((1, 1), dtype=np.int64)
    rank_nominees(single, found, found, offsets, single, 1.0, row.copy(), single.copy())
    find_places(row, single, row, row.copy(), single.copy())
    layout = np.full((1, 1, 3), -1, dtype=np.int64)
    layout[0, 0, 1] = 0
    places = found * 0
    locate_values(
        one, offsets, layout, places, places, places, places.copy(),
        np.empty((1, 1, 2), dtype=np.int64),
    )  # fmt: skip
