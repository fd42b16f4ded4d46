"""BM25 as numbers: the variants, and the weights of postings.

The formulas are those of `bm25s` (scoring.py), after Kamphuis et al., "Which BM25 Do You Mean?",
ECIR 2020; 'okapi' is that of `rank_bm25.BM25Okapi`, with its floor under negative weights.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.errors import ConfigurationError
from rag.index.kernels import group_by_term
from rag.types import Float32, Int64

METHODS = ("lucene", "robertson", "atire", "bm25l", "bm25+", "okapi")
SHIFTED = ("bm25l", "bm25+")
"""Methods that give a passage without the term a score too."""
OKAPI_EPSILON = 0.25
POSTINGS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Variant:
    """Which BM25: `k1` bounds what repetition adds, `b` is how much length matters (0 to 1),
    `delta` is the lower bound of 'bm25l' and 'bm25+'.
    """

    method: str
    k1: float
    b: float
    delta: float

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigurationError(
                f"unknown BM25 method '{self.method}'; use one of {', '.join(METHODS)}"
            )
        for name, value in (("k1", self.k1), ("b", self.b), ("delta", self.delta)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"BM25's {name} must be 0 or more, got {value}")
        if self.b > 1:
            raise ConfigurationError(f"BM25's b must be at most 1, got {self.b}")


@dataclass(frozen=True, slots=True)
class TermCounts:
    """A corpus as counts. `vocabulary` ascends by code point; posting i says that its passage has
    term `terms[i]` (int32) `counts[i]` times (int32). Passage r has `sizes[r]` postings (int32),
    after those of the passages before it, and `lengths[r]` terms in all (int32).
    """

    vocabulary: list[str]
    terms: NDArray[np.int32]
    counts: NDArray[np.int32]
    sizes: NDArray[np.int32]
    lengths: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Postings:
    """Postings by term: term t has rows[indptr[t]:indptr[t + 1]] (int32, ascending) with `scores`
    (float32); `absent` (float32, by term) is the score of a passage without the term, which has
    been taken off from `scores`.
    """

    indptr: Int64
    rows: NDArray[np.int32]
    scores: Float32
    absent: Float32


def count_terms(passages: Iterable[Sequence[str]]) -> TermCounts:
    """Counts the terms of each passage, one passage in memory at a time."""
    ids: dict[str, int] = {}
    terms, counts, sizes, lengths = array("i"), array("i"), array("i"), array("i")
    for passage in passages:
        tally = Counter(passage)
        terms.extend([ids.setdefault(term, len(ids)) for term in tally])
        counts.extend(tally.values())
        sizes.append(len(tally))
        lengths.append(len(passage))
    vocabulary = sorted(ids)
    rank = np.empty(len(ids), dtype=np.int32)  # from order of appearance to sorted order
    rank[[ids[term] for term in vocabulary]] = np.arange(len(ids), dtype=np.int32)
    in_order = rank[np.frombuffer(terms, dtype=np.int32)]
    by_passage = (np.array(values, dtype=np.int32) for values in (counts, sizes, lengths))
    return TermCounts(vocabulary, in_order, *by_passage)


def weigh(
    corpus: TermCounts, variant: Variant, weight: NDArray[np.float64] | None = None
) -> Postings:
    """The score that each term adds to each passage that has it, times the term's `weight`."""
    frequency = np.bincount(corpus.terms, minlength=len(corpus.vocabulary))
    indptr = np.zeros(len(frequency) + 1, dtype=np.int64)
    np.cumsum(frequency, out=indptr[1:])
    rows = np.empty(len(corpus.terms), dtype=np.int32)
    counts = np.empty_like(rows)
    group_by_term(corpus.terms, corpus.counts, corpus.sizes, indptr[:-1].copy(), rows, counts)

    tf_weight, idf = _formulas(variant, frequency, len(corpus.lengths))
    idf = idf if weight is None else idf * weight
    average = float(corpus.lengths.mean()) if len(corpus.lengths) else 0.0
    absent = np.zeros(len(frequency))
    if variant.method in SHIFTED and len(frequency):
        absent = idf * tf_weight(np.float64(0), average, average)
    scores = np.empty(len(rows), dtype=np.float32)
    term_of = np.repeat(np.arange(len(frequency), dtype=np.int32), frequency)
    for start in range(0, len(rows), POSTINGS_AT_ONCE):
        part = slice(start, start + POSTINGS_AT_ONCE)
        weight = tf_weight(counts[part].astype(np.float64), corpus.lengths[rows[part]], average)
        scores[part] = idf[term_of[part]] * weight - absent[term_of[part]]
    return Postings(indptr, rows, scores, absent.astype(np.float32))


def _formulas(variant: Variant, frequency: Int64, passages: int) -> tuple[Any, NDArray[np.float64]]:
    """A function (counts, length, average length) -> weight, and the idf of each term."""
    try:
        from bm25s import scoring
    except ImportError:
        raise ConfigurationError(
            "bm25s is not installed, which builds the sparse index; install rag-containers[indexer]"
        ) from None

    okapi = variant.method == "okapi"
    tf_formula = scoring._select_tfc_scorer("atire" if okapi else variant.method)
    options = {"k1": variant.k1, "b": variant.b, "delta": variant.delta}

    def tf_weight(counts: Any, length: Any, average: float) -> Any:
        return tf_formula(tf_array=counts, l_d=length, l_avg=average, **options)

    distinct, place = np.unique(frequency, return_inverse=True)
    if okapi:
        values = [math.log(passages - n + 0.5) - math.log(n + 0.5) for n in distinct.tolist()]
    else:
        idf_formula = scoring._select_idf_scorer(variant.method)
        values = [idf_formula(n, N=passages) for n in distinct.tolist()]
    idf = np.array(values, dtype=np.float64)[place]
    if okapi and len(idf):
        idf = np.where(idf < 0, OKAPI_EPSILON * idf.mean(), idf)
    return tf_weight, idf
