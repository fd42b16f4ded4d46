"""Feedback fusion, the default: both legs' evidence for each candidate, then what the best teach.

1. *Candidates*: the union of both legs' best CANDIDATES. Each gets its exact cosine c, BM25 s and
   coverage v (the share of the query's idf whose terms it has), whichever leg found it.
2. *Direct evidence*: c first loses COMMON times the passage's mean cosine with all candidates:
   some passages are near to any query (hubs; Suzuki et al., "Centering similarity measures to
   reduce hubs", EMNLP 2013). Then
   trust · sharpness · (1 - (best c - c) / reach) + keywords · s / best s + coverage · v.
   `reach` is REACH times the deviation of cosines between passages of this index,
   so that encoders with narrow cosines need no other weights. `trust` falls to nearly nothing
   for a query in a script that the encoder's tokenizer cannot read. `sharpness` gives the dense
   leg more weight where the keyword leg hardly tells its first hit from its hundredth: it is the
   root of 0.7 / (1 - s / best s), cut to 0.3..3, where s is the BM25 of the last candidate of the
   sparse leg, 0 if that found fewer rows than the dense leg, which finds all that may be found.
3. *Feedback*: the best few candidates, by softmax, form a centroid on each leg; every candidate
   gains by its likeness to both, scaled to 0..1 over the candidates. Relevant passages resemble
   each other (the cluster hypothesis). From the centroid of vectors the mean of all candidates is
   taken off: what is like everything found is not what was asked. Rocchio, in The SMART Retrieval
   System, 1971, with its negative term; Diaz, "Regularizing ad hoc retrieval scores", CIKM 2005;
   absolute coverage: coordination level matching, Robertson and Sparck Jones, JASIS 1976.

4. *Probability*: the score that comes back estimates how probably the passage is relevant (see
   rag/retrieval/calibration.py). One `min_score` so means the same for every query, and the order
   stays.

The weights were chosen together over many collections; the result changes little around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rag.index.protocol import Evidence
from rag.index.topk import no_hits
from rag.retrieval.calibration import Calibration, Scale
from rag.retrieval.kernels import fuse, unite, weigh
from rag.types import Float32, Hits

CANDIDATES = 100
"""Hits of each leg that are looked at; all of them are ranked."""
REACH = 4.0
TEMPERATURE = 0.06
COMMON = 0.15
"""How much of a passage's mean cosine with the candidates its own cosine loses."""
SAMPLE = 256


class Asked(NamedTuple):
    """n queries: their texts, float32 (n, d) unit vectors, and float32 (n,) the share of their
    letters that the encoder's tokenizer reads.
    """

    texts: Sequence[str]
    vectors: Float32
    readable: Float32


USUAL = Scale(0.2, 0.14)
"""For an index too small to measure: that of all-MiniLM-L6-v2."""


@dataclass(frozen=True)
class Feedback:
    """The method's weights: of keywords, coverage and feedback against 1 for the dense leg.

    `dense_weight` shifts between the legs: 0.5 leaves them as they are, 1 asks the dense one alone
    and 0 the sparse one. Feedback learns from the best `passages`; likeness by terms counts
    `by_terms` times as much as likeness by vector.
    """

    dense_weight: float = 0.5
    keywords: float = 0.75
    coverage: float = 0.5
    feedback: float = 1.0
    passages: int = 5
    by_terms: float = 1.5
    calibration: Calibration = field(default=Calibration(), kw_only=True)

    def fuse(self, legs: Sequence[Hits], asked: Asked, index: Evidence, scale: Scale) -> Hits:
        """The candidates of (dense, sparse) hits, best first: Hits as deep as candidates go.

        Only the first CANDIDATES of each leg are looked at. Scores lie in 0..1 and are estimates of
        the probability of relevance; ties go by ascending row. `scale` is what `measure_scale`
        says of the index.
        """
        dense, sparse = (_first(hits) for hits in legs)
        firsts = np.empty(len(dense.rows) + 1, dtype=np.int64)
        room = np.empty(dense.rows.size + sparse.rows.size, dtype=np.int64)
        unite(dense.rows, sparse.rows, room, firsts)
        rows = room[: firsts[-1]]
        fused = no_hits(len(asked.texts), int(np.diff(firsts).max(initial=0)))
        if rows.size == 0:
            return fused
        (vectors, places), found = index.located_vectors(rows), index.passage_terms(rows)
        terms = index.query_terms(asked.texts)
        options = np.array(
            [self.dense_weight, self.keywords, self.coverage, self.feedback,
             self.feedback * self.by_terms, REACH * scale.deviation, TEMPERATURE, COMMON],
            dtype=np.float32,
        )  # fmt: skip
        settings = np.empty((len(asked.texts), 10), dtype=np.float32)
        weigh(dense.rows, sparse.scores, asked.readable, options, settings)
        fuse(
            vectors, places, found.starts, found.ends, found.terms, found.weights, rows, firsts,
            asked.vectors,
            terms.starts, terms.terms, terms.counts, terms.idf, settings, self.passages,
            self.calibration.numbers(scale), *fused,
        )  # fmt: skip
        return fused


def measure_scale(index: Evidence, rows: int) -> Scale:
    """The scale of an index of `rows` passages, from evenly spaced ones: the same every time."""
    sample = np.unique(np.linspace(0, max(rows - 1, 0), min(rows, SAMPLE)).astype(np.int64))
    if len(sample) < 16:
        return USUAL
    vectors = index.vectors(sample).astype(np.float64)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(sample), 1)]
    return Scale(float(cosines.mean()), max(float(cosines.std()), 0.01))


def _first(hits: Hits) -> Hits:
    """The first CANDIDATES of each query."""
    if hits.rows.shape[1] <= CANDIDATES:
        return hits
    rows, scores = hits
    return Hits(
        np.ascontiguousarray(rows[:, :CANDIDATES]), np.ascontiguousarray(scores[:, :CANDIDATES])
    )
