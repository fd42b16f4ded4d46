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

4. *Probability*: the score that comes back estimates how probably the passage is relevant (see
   rag/retrieval/calibration.py). One `min_score` so means the same for every query, and the order
   stays.

The weights were chosen together over many collections; the result changes little around them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rag.index.protocol import Evidence
from rag.index.topk import no_hits
from rag.retrieval.calibration import Calibration, Scale
from rag.retrieval.kernels import score
from rag.types import NO_ROW, Float32, Hits, Int64

CANDIDATES = 100
"""Hits of each leg that are looked at; all of them are ranked."""
REACH = 4.0
TEMPERATURE = 0.06
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
    and 0 the sparse one. Feedback learns from the best `passages`.
    """

    dense_weight: float = 0.5
    keywords: float = 0.75
    coverage: float = 0.5
    feedback: float = 1.0
    passages: int = 5
    calibration: Calibration = field(default=Calibration(), kw_only=True)

    def fuse(self, legs: Sequence[Hits], asked: Asked, index: Evidence, scale: Scale) -> Hits:
        """The candidates of (dense, sparse) hits, best first: Hits as deep as candidates go.

        Only the first CANDIDATES of each leg are looked at. Scores lie in 0..1 and are estimates of
        the probability of relevance; ties go by ascending row. `scale` is what `measure_scale`
        says of the index.
        """
        dense, sparse = (
            Hits(hits.rows[:, :CANDIDATES], hits.scores[:, :CANDIDATES]) for hits in legs
        )
        rows, starts = _union(dense, sparse)
        fused = no_hits(len(asked.texts), int(np.diff(starts).max(initial=0)))
        if rows.size == 0:
            return fused
        vectors, passages = index.vectors(rows), index.passage_terms(rows)
        terms = index.query_terms(asked.texts)
        trust = np.clip(2.0 * asked.readable - 1.0, 0.01, 1.0)
        settings, possible = self._settings(trust, _sharpness(dense, sparse), scale)
        table = _take_table(max(passages.terms.max(initial=0), terms.terms.max(initial=0)))
        best = np.empty(2, dtype=np.float32)
        for q in range(len(asked.texts)):
            first, end = starts[q], starts[q + 1]
            if first == end:
                continue
            scores = np.empty(end - first, dtype=np.float32)
            own = slice(terms.starts[q], terms.starts[q + 1])
            score(
                vectors, *passages, first,
                asked.vectors[q], terms.terms[own], terms.counts[own], terms.idf[own],
                settings[q], self.passages, table, scores, best,
            )  # fmt: skip
            part = scores / possible[q]
            probable = self.calibration.probability(part, best, trust[q], scale)
            order = np.argsort(-probable, kind="stable")
            fused.rows[q, : len(order)] = rows[first:end][order]
            fused.scores[q, : len(order)] = probable[order]
        _tables.append(table)
        return fused

    def _settings(
        self, trust: Float32, sharpness: Float32, scale: Scale
    ) -> tuple[Float32, Float32]:
        """What the kernel takes for each query, and the most that a candidate could score."""
        dense = trust * (2.0 * self.dense_weight)
        same = np.ones(len(dense))
        sparse = same * (2.0 - 2.0 * self.dense_weight)
        columns = [
            dense * sharpness, same * (REACH * scale.deviation),
            sparse * self.keywords, sparse * self.coverage,
            dense * self.feedback, sparse * self.feedback, same * TEMPERATURE,
        ]  # fmt: skip
        settings = np.stack(columns, axis=1).astype(np.float32)
        return settings, settings[:, [0, 2, 3, 4, 5]].sum(axis=1)


def measure_scale(index: Evidence, rows: int) -> Scale:
    """The scale of an index of `rows` passages, from evenly spaced ones: the same every time."""
    sample = np.unique(np.linspace(0, max(rows - 1, 0), min(rows, SAMPLE)).astype(np.int64))
    if len(sample) < 16:
        return USUAL
    vectors = index.vectors(sample).astype(np.float64)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(sample), 1)]
    return Scale(float(cosines.mean()), max(float(cosines.std()), 0.01))


_tables: deque[Float32] = deque()


def _take_table(last: int) -> Float32:
    """float32 (more than `last`, 2) of zeros; as many exist as searches ever ran at once."""
    try:
        table = _tables.pop()
    except IndexError:
        table = np.zeros((0, 2), dtype=np.float32)
    if len(table) <= last:
        table = np.zeros((2 * int(last) + 64, 2), dtype=np.float32)
    return table


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
