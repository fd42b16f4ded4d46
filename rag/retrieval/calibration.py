"""What a score of feedback fusion means: how probably the passage is relevant.

log-odds = slope · part + trust · (a + b · apart) + (1 - trust) · (c + d · covered)

`part` is the candidate's sum as a share of what it could be; the rest is the same for all passages
of a query, so the order stays: `apart` is how many deviations the best cosine lies above the mean
cosine between passages of the index, `covered` the best coverage, and `trust` whether the encoder
reads the query (see rag/retrieval/feedback.py). Logistic calibration: Platt, Advances in Large
Margin Classifiers, 1999. tests/bench/calibration.py fits it anew, and says how well it holds on
collections that a fit has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rag.types import Float32

ANSWERABLE = 0.2
"""A query whose best passage scores lower is probably not answered by the index: below it,
abstain. Chosen by tests/bench/calibration.py."""


class Scale(NamedTuple):
    """Mean and deviation of the cosines between passages of an index."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The numbers of the formula: `by_cosine` is (a, b), `by_coverage` (c, d)."""

    slope: float = 5.8
    by_cosine: tuple[float, float] = (-6.8, 0.75)
    by_coverage: tuple[float, float] = (-6.1, 2.5)

    def probability(self, part: Float32, best: Float32, trust: float, scale: Scale) -> Float32:
        """float32, as many as `part`, 0..1; `best` is the query's best cosine and coverage."""
        apart = (best[0] - scale.mean) / scale.deviation
        odds = trust * (self.by_cosine[0] + self.by_cosine[1] * apart)
        odds += (1.0 - trust) * (self.by_coverage[0] + self.by_coverage[1] * best[1])
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * part + odds))), dtype=np.float32)
