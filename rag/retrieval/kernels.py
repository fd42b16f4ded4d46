"""The compiled inner loops of feedback fusion. How they are compiled: rag/compiled/.

Passages of many queries lie one after the other: passage p has the vector vectors[places[p]] and
the terms terms[starts[p]:ends[p]] with their weights.

Numbers by term are kept in a hash table that is small enough for the nearest cache, for most terms
of a passage are not in it: `heads` (a power of two) has for each remainder of a term the entry to
look at, 0 for none; entry e is of the term links[e, 0], has values[e], and links[e, 1] is the next
entry of that remainder. Entry 0 is of no term, and its values are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rag.compiled.kernel import kernel, reads, writes
from rag.index.kernels import LINE, fetch_vectors, sort_hits
from rag.types import Float32, Int64

_FLOATS = reads(np.float32)
_IDS = reads(np.int32)
_PASSAGES = (
    reads(np.float32, 2),  # vectors
    reads(np.int64),  # places
    reads(np.int64),  # starts
    reads(np.int64),  # ends
    _IDS,  # terms
    _FLOATS,  # weights
    np.int64,  # the first passage of the query
)
_TABLE = (reads(np.uint32), reads(np.uint32, 2), reads(np.float32, 2))
NO_TERM = np.uint32(0xFFFFFFFF)
FEWEST_SLOTS = 512
SLOTS = 8
"""Of a table, for each term that it may hold."""


@kernel(*_PASSAGES[2:], writes(np.float32))
def fetch_terms(
    starts: Int64, ends: Int64, terms: Any, weights: Float32, first: int, out: Float32
) -> None:
    """What `fetch_vectors` does, for the terms and weights of passages from `first` on."""
    for i in range(out.size):
        some = np.float32(0.0)
        for j in range(starts[first + i], ends[first + i], LINE):
            some += weights[j] + np.float32(terms[j])
        out[i] = some


@kernel(*_PASSAGES[:2], np.int64, _FLOATS, writes(np.float32), reorder=True)
def inner_products(
    vectors: Float32, places: Int64, first: int, vector: Float32, out: Float32
) -> None:
    """out[i] = the vector of passage first + i · vector."""
    for i in range(out.size):
        place = places[first + i]
        total = np.float32(0.0)
        for j in range(vectors.shape[1]):
            total += vectors[place, j] * vector[j]
        out[i] = total


@kernel(*_PASSAGES[:2], np.int64, np.int64, writes(np.float32), reorder=True)
def mean_vector(vectors: Float32, places: Int64, first: int, count: int, out: Float32) -> None:
    """The mean of `count` vectors from passage `first` on into `out`, summed four at a time."""
    for j in range(out.size):
        out[j] = np.float32(0.0)
    whole = first + count // 4 * 4
    for i in range(first, whole, 4):
        a = places[i]
        b = places[i + 1]
        c = places[i + 2]
        d = places[i + 3]
        for j in range(out.size):
            out[j] += (vectors[a, j] + vectors[b, j]) + (vectors[c, j] + vectors[d, j])
    for i in range(whole, first + count):
        a = places[i]
        for j in range(out.size):
            out[j] += vectors[a, j]
    for j in range(out.size):
        out[j] /= np.float32(count)


@kernel(
    writes(np.uint32), writes(np.uint32, 2), writes(np.float32, 2), writes(np.uint32), np.int64,
    np.float32, np.float32,
)  # fmt: skip
def add_to_table(
    heads: Any, links: Any, values: Float32, count: Any, term: int, weighted: float, plain: float
) -> None:
    """Adds to what the table has for a term. count[0] is how many entries it has."""
    own = np.uint32(term)
    slot = own & np.uint32(heads.size - 1)
    entry = heads[slot]
    while entry > 0 and links[entry, 0] != own:
        entry = links[entry, 1]
    if entry == 0:
        count[0] += np.uint32(1)
        entry = count[0]
        links[entry, 0] = own
        links[entry, 1] = heads[slot]
        heads[slot] = entry
        values[entry, 0] = np.float32(0.0)
        values[entry, 1] = np.float32(0.0)
    values[entry, 0] += weighted
    values[entry, 1] += plain


@kernel(*_PASSAGES[2:], *_TABLE, writes(np.float32, 2))
def sum_terms(
    starts: Int64,
    ends: Int64,
    terms: Any,
    weights: Float32,
    first: int,
    heads: Any,
    links: Any,
    values: Float32,
    out: Float32,
) -> None:
    """Adds up what the table holds for the terms of passage first + i.

    out[0, i] is the sum of weight · values[of the term, 0], out[1, i] that of values[…, 1].
    """
    mask = np.uint32(heads.size - 1)
    for i in range(out.shape[1]):
        weighted = np.float32(0.0)
        plain = np.float32(0.0)
        for j in range(starts[first + i], ends[first + i]):
            term = np.uint32(terms[j])
            entry = heads[term & mask]
            # Few entries have a next one, but whether a term is there cannot be foretold: that
            # must be no branch.
            while links[entry, 1] > 0 and links[entry, 0] != term:
                entry = links[entry, 1]
            there = np.float32(links[entry, 0] == term)
            weighted += there * weights[j] * values[entry, 0]
            plain += there * values[entry, 1]
        out[0, i] = weighted
        out[1, i] = plain


@kernel(*_PASSAGES[2:4], *_PASSAGES[5:], writes(np.float32), reorder=True)
def norms(starts: Int64, ends: Int64, weights: Float32, first: int, out: Float32) -> None:
    """out[i] = the L2 norm of the weights of passage first + i."""
    for i in range(out.size):
        total = np.float32(0.0)
        for j in range(starts[first + i], ends[first + i]):
            total += weights[j] * weights[j]
        out[i] = np.sqrt(total)


@kernel(_FLOATS, np.float32, writes(np.int64), writes(np.float32))
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


@kernel(_FLOATS, np.float32, writes(np.float32))
def add_scaled(values: Float32, weight: float, out: Float32) -> None:
    """Adds weight · (values - lowest) / (highest - lowest); all of it where all are the same: then
    each is as alike as any, and one passage alone scores as the best of many would.
    """
    low = np.float32(np.inf)
    high = np.float32(-np.inf)
    for i in range(values.size):
        low = min(low, values[i])
        high = max(high, values[i])
    spread = high - low
    for i in range(out.size):
        out[i] += weight * (values[i] - low) / spread if spread > 0 else weight


@kernel(*_PASSAGES, _FLOATS, _IDS, _FLOATS, _FLOATS, writes(np.float32, 2))
def observe(
    vectors: Float32,
    places: Int64,
    starts: Int64,
    ends: Int64,
    terms: Any,
    weights: Float32,
    first: int,
    query: Float32,
    asked: Any,
    counts: Float32,
    idf: Float32,
    seen: Float32,
) -> None:
    """What passages from `first` on say of one query: (3, passages) cosine, BM25, coverage.

    Coverage is the share of the query's idf whose terms a passage has; 0 without any known term.
    """
    inner_products(vectors, places, first, query, seen[0])
    total = np.float32(0.0)
    for i in range(asked.size):
        total += idf[i]
    slots = FEWEST_SLOTS
    while slots < SLOTS * asked.size:
        slots *= 2
    heads = np.zeros(slots, dtype=np.uint32)
    links = np.zeros((asked.size + 1, 2), dtype=np.uint32)
    links[0, 0] = NO_TERM
    values = np.zeros((asked.size + 1, 2), dtype=np.float32)
    count = np.zeros(1, dtype=np.uint32)
    for i in range(asked.size):
        add_to_table(heads, links, values, count, asked[i], counts[i], idf[i] / total)
    sum_terms(starts, ends, terms, weights, first, heads, links, values, seen[1:])


@kernel(*_PASSAGES, reads(np.int64), _FLOATS, _FLOATS, writes(np.float32, 2))
def resemble(
    vectors: Float32,
    places: Int64,
    starts: Int64,
    ends: Int64,
    terms: Any,
    weights: Float32,
    first: int,
    picked: Int64,
    shares: Float32,
    mean: Float32,
    seen: Float32,
) -> None:
    """How like the picked passages each one from `first` on is: (2, passages), by vector, by terms.

    The weighted mean of cosines with them, `shares` adding to 1; by vector less the product with
    `mean`. seen[2] is scratch.
    """
    lengths = np.empty(seen.shape[1], dtype=np.float32)
    norms(starts, ends, weights, first, lengths)
    centre = np.empty(mean.size, dtype=np.float32)
    for j in range(mean.size):
        centre[j] = -mean[j]
    most = 0
    for i in range(picked.size):
        most += ends[first + picked[i]] - starts[first + picked[i]]
    slots = FEWEST_SLOTS
    while slots < SLOTS * most:
        slots *= 2
    heads = np.zeros(slots, dtype=np.uint32)
    links = np.zeros((most + 1, 2), dtype=np.uint32)
    links[0, 0] = NO_TERM
    values = np.zeros((most + 1, 2), dtype=np.float32)
    count = np.zeros(1, dtype=np.uint32)
    for i in range(picked.size):
        row = first + picked[i]
        for j in range(centre.size):
            centre[j] += shares[i] * vectors[places[row], j]
        if lengths[picked[i]] > 0:
            share = shares[i] / lengths[picked[i]]
            for j in range(starts[row], ends[row]):
                part = share * weights[j]
                add_to_table(heads, links, values, count, terms[j], part, np.float32(0.0))
    inner_products(vectors, places, first, centre, seen[0])
    sum_terms(starts, ends, terms, weights, first, heads, links, values, seen[1:])
    for i in range(seen.shape[1]):
        seen[1, i] = seen[1, i] / lengths[i] if lengths[i] > 0 else np.float32(0.0)


@kernel(
    *_PASSAGES, _FLOATS, _IDS, _FLOATS, _FLOATS, _FLOATS, np.int64,
    writes(np.float32), writes(np.float32),
)  # fmt: skip
def score(
    vectors: Float32,
    places: Int64,
    starts: Int64,
    ends: Int64,
    terms: Any,
    weights: Float32,
    first: int,
    query: Float32,
    asked: Any,
    counts: Float32,
    idf: Float32,
    settings: Float32,
    learn_from: int,
    scores: Float32,
    best: Float32,
) -> None:
    """Feedback fusion (see rag/retrieval/feedback.py): scores of passages from `first` on.

    `settings`: the weight of closeness, its reach, the weights of keywords, of coverage, of
    likeness by vector and by terms, the temperature, the share of the mean vector that is taken
    off the query. `best` becomes the cosine of the closest passage and the best coverage.
    """
    seen = np.empty((3, scores.size), dtype=np.float32)
    fetch_vectors(vectors, places[first : first + scores.size], seen[0])
    fetch_terms(starts, ends, terms, weights, first, seen[1])
    mean = np.empty(query.size, dtype=np.float32)
    mean_vector(vectors, places, first, scores.size, mean)
    centred = np.empty(query.size, dtype=np.float32)
    for j in range(query.size):
        centred[j] = query[j] - settings[7] * mean[j]
    observe(
        vectors, places, starts, ends, terms, weights, first, centred, asked, counts, idf, seen
    )  # fmt: skip
    closest = 0
    best[1] = np.float32(-np.inf)
    keywords = np.float32(1e-9)
    for i in range(scores.size):
        if seen[0, i] > seen[0, closest]:
            closest = i
        best[1] = max(best[1], seen[2, i])
        keywords = max(keywords, seen[1, i])
    nearest = seen[0, closest]
    best[0] = np.float32(0.0)
    for j in range(query.size):
        best[0] += vectors[places[first + closest], j] * query[j]
    for i in range(scores.size):
        close = max(np.float32(1.0) - (nearest - seen[0, i]) / settings[1], np.float32(0.0))
        scores[i] = settings[0] * close + settings[2] * seen[1, i] / keywords
        scores[i] += settings[3] * seen[2, i]
    picked = np.empty(min(learn_from, scores.size), dtype=np.int64)
    shares = np.empty(picked.size, dtype=np.float32)
    pick_best(scores, settings[6], picked, shares)
    # Where even the best has little evidence, there is little to learn from it.
    learn = min(scores[picked[0]], np.float32(1.0))
    resemble(vectors, places, starts, ends, terms, weights, first, picked, shares, mean, seen)
    add_scaled(seen[0], settings[4] * learn, scores)
    add_scaled(seen[1], settings[5] * learn, scores)


@kernel(reads(np.int64, 2), reads(np.int64, 2), writes(np.int64), writes(np.int64))
def unite(dense: Int64, sparse: Int64, rows: Int64, starts: Int64) -> None:
    """The rows that either leg found for each query, ascending and once.

    Those of query q go to rows[starts[q]:starts[q + 1]]; `rows` has room for all, and -1 is no row.
    """
    depth = dense.shape[1]
    both = np.empty(depth + sparse.shape[1], dtype=np.int64)
    same = np.zeros(both.size, dtype=np.float32)
    starts[0] = 0
    for q in range(dense.shape[0]):
        for i in range(depth):
            both[i] = dense[q, i]
        for i in range(sparse.shape[1]):
            both[depth + i] = sparse[q, i]
        # Without scores, hits are in order where their rows ascend.
        sort_hits(both, same, both.size)
        at = starts[q]
        for i in range(both.size):
            if both[i] >= 0 and (i == 0 or both[i] != both[i - 1]):
                rows[at] = both[i]
                at += 1
        starts[q + 1] = at


@kernel(reads(np.int64, 2), reads(np.float32, 2), _FLOATS, _FLOATS, writes(np.float32, 2))
def weigh(
    dense_rows: Int64, sparse_scores: Float32, readable: Float32, options: Float32, out: Float32
) -> None:
    """What `score` and `fuse` take for each query: its settings, the most that a candidate could
    score, and `trust`.

    `options`: dense weight, keywords, coverage, feedback by vector and by terms, reach,
    temperature, common.
    """
    for q in range(out.shape[0]):
        sharpness = np.float32(1.0)
        depth = 0
        for i in range(dense_rows.shape[1]):
            depth += dense_rows[q, i] >= 0
        if dense_rows.shape[1] > 0 and sparse_scores.shape[1] > 0:
            last = sparse_scores[q, min(max(depth, 1), sparse_scores.shape[1]) - 1]
            kept = max(last, np.float32(0.0)) / max(sparse_scores[q, 0], np.float32(1e-9))
            flat = max(np.float32(1.0) - kept, np.float32(0.05))
            sharpness = min(max(np.sqrt(np.float32(0.7) / flat), np.float32(0.3)), np.float32(3.0))
        trust = min(max(2.0 * readable[q] - 1.0, 0.01), 1.0)
        dense = trust * 2.0 * options[0]
        sparse = 2.0 - 2.0 * options[0]
        out[q, 0] = dense * sharpness
        out[q, 1] = options[5]
        out[q, 2] = sparse * options[1]
        out[q, 3] = sparse * options[2]
        out[q, 4] = dense * options[3]
        out[q, 5] = sparse * options[4]
        out[q, 6] = options[6]
        out[q, 7] = options[7]
        out[q, 8] = out[q, 0] + out[q, 2] + out[q, 3] + out[q, 4] + out[q, 5]
        out[q, 9] = trust


@kernel(
    *_PASSAGES[:6], reads(np.int64), reads(np.int64), reads(np.float32, 2),
    reads(np.int64), _IDS, _FLOATS, _FLOATS, reads(np.float32, 2), np.int64,
    reads(np.float64), writes(np.int64, 2), writes(np.float32, 2),
)  # fmt: skip
def fuse(
    vectors: Float32,
    places: Int64,
    starts: Int64,
    ends: Int64,
    terms: Any,
    weights: Float32,
    rows: Int64,
    firsts: Int64,
    queries: Float32,
    asked_starts: Int64,
    asked: Any,
    counts: Float32,
    idf: Float32,
    settings: Float32,
    learn_from: int,
    calibration: Any,
    out_rows: Int64,
    out_scores: Float32,
) -> None:
    """The candidates of all queries by falling probability of relevance, ties by ascending row.

    Query q has the candidates rows[firsts[q]:firsts[q + 1]], ascending, and the terms from
    asked_starts[q] on; `settings` are those of `weigh`. `calibration`: the numbers of
    rag/retrieval/calibration.py, in the order of its `numbers`.
    """
    best = np.empty(2, dtype=np.float32)
    for q in range(firsts.size - 1):
        first = firsts[q]
        end = firsts[q + 1]
        if first == end:
            continue
        own = slice(asked_starts[q], asked_starts[q + 1])
        scores = np.empty(end - first, dtype=np.float32)
        score(
            vectors, places, starts, ends, terms, weights, first, queries[q], asked[own],
            counts[own], idf[own], settings[q], learn_from, scores, best,
        )  # fmt: skip
        trust = settings[q, 9]
        apart = (best[0] - calibration[5]) / calibration[6]
        odds = trust * (calibration[1] + calibration[2] * apart)
        odds += (1.0 - trust) * (calibration[3] + calibration[4] * best[1])
        for i in range(scores.size):
            part = calibration[0] * (scores[i] / settings[q, 8])
            scores[i] = 1.0 / (1.0 + np.exp(-(part + odds)))
        found = np.empty(end - first, dtype=np.int64)
        for i in range(found.size):
            found[i] = rows[first + i]
        sort_hits(found, scores, found.size)
        for i in range(found.size):
            out_rows[q, i] = found[i]
            out_scores[q, i] = scores[i]


def warm() -> None:
    """Runs every kernel once, so that the first request finds them loaded."""
    one, term = np.ones(1, dtype=np.float32), np.zeros(1, dtype=np.int32)
    single, row = np.ones((1, 1), dtype=np.float32), np.zeros((1, 1), dtype=np.int64)
    rows, starts = np.zeros(2, dtype=np.int64), np.array([0, 1], dtype=np.int64)
    unite(row, row, rows, starts)
    settings = np.empty((1, 10), dtype=np.float32)
    weigh(row, single, one, np.ones(8, dtype=np.float32), settings)
    fuse(
        single, rows[:1], rows[:1], starts[1:], term, one, rows[:1], starts,
        single, starts, term, one, one, settings, 1,
        np.ones(7), row, single.copy(),
    )  # fmt: skip
