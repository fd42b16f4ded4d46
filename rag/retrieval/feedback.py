"""Feedback fusion, the default: both legs' evidence for each candidate, then what the best teach.

1. *Candidates*: the union of both legs' best CANDIDATES. Each gets its exact cosine c, BM25 s and
   coverage v (the share of the query's idf whose terms it has), whichever leg found it.
2. *Direct evidence*: trust · sharpness · (1 - (best c - c) / reach) + keywords · s / best s
   + coverage · v. `reach` is REACH times the deviation of cosines between passages of this index,
   so that encoders with narrow cosines need no other weights. `trust` falls to nearly nothing
   for a query in a script that the encoder's tokenizer cannot read. `sharpness` gives the dense
   leg more weight where the keyword leg hardly tells its first hit from its hundredth.
3. *Feedback*: the best few candidates, by softmax, form a centroid on each leg; every candidate
   gains by its likeness to both, scaled to 0..1 over the candidates. Relevant passages resemble
   each other (the cluster hypothesis). Rocchio, in The SMART Retrieval System, 1971; Diaz,
   "Regularizing ad hoc retrieval scores", CIKM 2005; absolute coverage: coordination level
   matching, Robertson and Sparck Jones, JASIS 1976.

The weights were chosen together over many collections; the result changes little around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rag.index.protocol import Evidence, QueryTerms, TermWeights
from rag.index.topk import no_hits
from rag.retrieval.kernels import add_scaled, observe, pick_best, resemble
from rag.types import NO_ROW, Float32, Hits, Int64

CANDIDATES = 100
"""Hits of each leg that are looked at; all of them are ranked."""
REACH = 4.0
TEMPERATURE = 0.06
SAMPLE = 256
USUAL_DEVIATION = 0.14
"""Of cosines between passages, for an index too small to measure it (all-MiniLM-L6-v2's)."""


class Asked(NamedTuple):
    """n queries: their texts, float32 (n, d) unit vectors, and float32 (n,) the share of their
    letters that the encoder's tokenizer reads.
    """

    texts: Sequence[str]
    vectors: Float32
    readable: Float32


@dataclass(frozen=True)
class Feedback:
    """The method's weights: of keywords, coverage and feedback against 1 for the dense leg.

    `dense_weight` shifts between the legs: 0.5 leaves them as they are, 1 asks the dense one alone
    and 0 the sparse one. Feedback learns from the best `passages`.
    """

    dense_weight: float = 0.5
    keywords: float = 0.75
    coverage: float = 0.5
    feedback: float = 1.0
    passages: int = 5

    def fuse(self, legs: Sequence[Hits], asked: Asked, index: Evidence, reach: float) -> Hits:
        """The candidates of (dense, sparse) hits, best first: Hits as deep as candidates go.

        Only the first CANDIDATES of each leg are looked at. Scores lie in 0..1, the part of what
        the query's best possible candidate would have; ties go by ascending row. `reach` is what
        `measure_reach` says of the index.
        """
        dense, sparse = (
            Hits(hits.rows[:, :CANDIDATES], hits.scores[:, :CANDIDATES]) for hits in legs
        )
        rows, starts = _union(dense, sparse)
        fused = no_hits(len(asked.texts), int(np.diff(starts).max(initial=0)))
        if rows.size == 0:
            return fused
        seen = _Seen(starts, index.vectors(rows), index.passage_terms(rows))
        terms = index.query_terms(asked.texts)
        trust = np.clip(2.0 * asked.readable - 1.0, 0.01, 1.0).astype(np.float32)
        sharpness = _sharpness(dense, sparse)
        for q in range(len(asked.texts)):
            first, end = starts[q], starts[q + 1]
            if first == end:
                continue
            scores = self._score(seen, q, asked.vectors[q], terms, trust[q], sharpness[q], reach)
            order = np.argsort(-scores, kind="stable")
            fused.rows[q, : len(order)] = rows[first:end][order]
            fused.scores[q, : len(order)] = scores[order]
        return fused

    def _score(
        self,
        seen: _Seen,
        q: int,
        vector: Float32,
        terms: QueryTerms,
        trust: np.float32,
        sharpness: np.float32,
        reach: float,
    ) -> Float32:
        """float32 (candidates of query q,)."""
        starts, vectors, (term_starts, passage_terms, weights) = seen
        first, end = starts[q], starts[q + 1]
        found = np.empty((3, end - first), dtype=np.float32)
        own = slice(terms.starts[q], terms.starts[q + 1])
        observe(
            vectors, term_starts, passage_terms, weights, first, end,
            vector, terms.terms[own], terms.counts[own], terms.idf[own], found,
        )  # fmt: skip
        cosine, bm25, coverage = found
        dense = trust * np.float32(2.0 * self.dense_weight)
        sparse = np.float32(2.0 - 2.0 * self.dense_weight)
        near = np.maximum(1.0 - (cosine.max() - cosine) / np.float32(reach), 0.0)
        matched = bm25 / max(bm25.max(), np.float32(1e-9))
        keywords = np.float32(self.keywords) * matched + np.float32(self.coverage) * coverage
        scores: Float32 = (dense * sharpness * near + sparse * keywords).astype(np.float32)

        picked = np.empty(min(self.passages, len(scores)), dtype=np.int64)
        shares = np.empty(len(picked), dtype=np.float32)
        pick_best(scores, TEMPERATURE, picked, shares)
        # Where even the best has little evidence, there is little to learn from it.
        learn = np.float32(self.feedback) * min(scores.max(), np.float32(1.0))
        resemble(vectors, term_starts, passage_terms, weights, first, picked + first, shares, found)
        add_scaled(found[0], dense * learn, scores)
        add_scaled(found[1], sparse * learn, scores)
        possible = dense * sharpness + sparse * (self.keywords + self.coverage)
        possible += (dense + sparse) * self.feedback
        return (scores / np.float32(possible)).astype(np.float32)


class _Seen(NamedTuple):
    """What the index tells of all candidates, query after query: those of query q are
    starts[q]:starts[q + 1].
    """

    starts: Int64
    vectors: Float32
    terms: TermWeights


def measure_reach(index: Evidence, rows: int) -> float:
    """REACH times the deviation of cosines between passages of an index of `rows` passages.

    Over a sample of rows, evenly spaced: the same for the same index.
    """
    sample = np.unique(np.linspace(0, max(rows - 1, 0), min(rows, SAMPLE)).astype(np.int64))
    if len(sample) < 16:
        return REACH * USUAL_DEVIATION
    vectors = index.vectors(sample).astype(np.float64)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(sample), 1)]
    return REACH * max(float(cosines.std()), 0.01)


def _union(dense: Hits, sparse: Hits) -> tuple[Int64, Int64]:
    """The rows of each query's candidates, ascending and once, and where each query's start."""
    rows = np.sort(np.concatenate([dense.rows, sparse.rows], axis=1), axis=1)
    new = rows != NO_ROW
    new[:, 1:] &= rows[:, 1:] != rows[:, :-1]
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(new.sum(axis=1), out=starts[1:])
    return rows[new], starts


def _sharpness(dense: Hits, sparse: Hits) -> Float32:
    """How much more the dense leg counts: the root of 0.7 / (1 - s / best s), cut to 0.3..3.

    s is the BM25 of the last candidate of the sparse leg, 0 where it found fewer rows than the
    dense leg, which finds all that may be found.
    """
    if dense.rows.shape[1] == 0 or sparse.rows.shape[1] == 0:
        return np.ones(len(dense.rows), dtype=np.float32)
    depth = np.maximum((dense.rows != NO_ROW).sum(axis=1), 1)
    place = np.minimum(depth, sparse.rows.shape[1]) - 1
    last = np.take_along_axis(sparse.scores, place[:, None], axis=1)[:, 0]
    best = np.maximum(sparse.scores[:, 0], 1e-9)
    kept = np.where(np.isneginf(last), 0.0, np.maximum(last, 0.0) / best)
    return np.clip(np.sqrt(0.7 / np.maximum(1.0 - kept, 0.05)), 0.3, 3.0).astype(np.float32)
