"""What a score of feedback fusion means: how probably the passage is relevant.

log-odds = slope · part + trust · (a + b · apart) + (1 - trust) · (c + d · covered)

`part` is the candidate's sum as a share of what it could be; the rest is the same for all passages
of a query, so the order stays: `apart` is how many deviations the cosine of the closest passage
lies above the mean cosine between passages of the index, `covered` the best coverage, and `trust`
whether the encoder reads the query (see rag/retrieval/feedback.py). Logistic calibration: Platt,
Advances in Large Margin Classifiers, 1999. tests/bench/calibration.py fits it anew, and says how
well it holds on collections that a fit has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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

    def numbers(self, scale: Scale) -> NDArray[np.float64]:
        """All of them and the scale's, as `rag.retrieval.kernels.fuse` takes them."""
        return np.array([self.slope, *self.by_cosine, *self.by_coverage, *scale])
