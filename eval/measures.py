"""Measures of rankings, through ir-measures; latency percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.datasets import Qrels
from eval.runs import Ranking
from rag.errors import ConfigurationError, EvaluationError

Float64 = NDArray[np.float64]

MEASURES = (
    "nDCG@10", "Recall@100", "MRR@10", "MAP", "P@1", "P@5", "P@10", "Judged@10",
)  # fmt: skip
DEPTHS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
"""Where recall is measured for the curve of recall against depth."""
_PROVIDER_NAMES = {"MRR": "RR", "MAP": "AP", "Recall": "R", "Hit": "Success"}
_BATCH = 256


def per_query(
    run: Mapping[str, Ranking], qrels: Qrels, measures: Sequence[str] = MEASURES
) -> dict[str, Float64]:
    """Each measure's score for each judged query: float64 (len(qrels),), in the order of `qrels`.

    A judged query that the run lacks scores 0; queries without judgements do not count. Names are
    those of ir-measures, and MRR@k, MAP and Recall@k for its RR@k, AP and R@k. The gain of nDCG is
    the grade, its discount log2(rank + 1) (Järvelin and Kekäläinen, TOIS 2002, as trec_eval does
    it). Raises ConfigurationError for a measure that ir-measures does not know.
    """
    import ir_measures

    parsed = {_parse(name): name for name in measures}
    place = {query_id: i for i, query_id in enumerate(qrels)}
    scores = {name: np.zeros(len(qrels)) for name in measures}
    found = (q for q in qrels if q in run and len(run[q].doc_ids))
    while batch := list(islice(found, _BATCH)):
        ranked = {q: _by_rank(run[q]) for q in batch}
        judged = {q: qrels[q] for q in batch}
        for metric in ir_measures.iter_calc(list(parsed), judged, ranked):
            scores[parsed[metric.measure]][place[metric.query_id]] = metric.value
    return scores


def means(scores: Mapping[str, Float64]) -> dict[str, float]:
    """The mean of each measure over the judged queries."""
    return {name: float(values.mean()) for name, values in scores.items()}


def recall_at_depths(
    run: Mapping[str, Ranking], qrels: Qrels, depths: Sequence[int] = DEPTHS
) -> dict[int, float]:
    """Mean recall of the first d documents, for each depth d."""
    scores = per_query(run, qrels, [f"Recall@{depth}" for depth in depths])
    return {depth: float(scores[f"Recall@{depth}"].mean()) for depth in depths}


def latency(milliseconds: Sequence[float]) -> dict[str, float]:
    """Percentiles p50, p95 and p99 in milliseconds (linear interpolation), and `n`."""
    if not len(milliseconds):
        raise EvaluationError("no query was timed; there is no latency to report")
    p50, p95, p99 = np.percentile(np.asarray(milliseconds, dtype=np.float64), [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "n": len(milliseconds)}


def _parse(name: str) -> Any:
    import ir_measures

    base, at, cutoff = name.partition("@")
    try:
        return ir_measures.parse_measure(f"{_PROVIDER_NAMES.get(base, base)}{at}{cutoff}")
    except (NameError, ValueError, SyntaxError) as error:
        raise ConfigurationError(
            f"there is no measure '{name}' ({error}); use one such as {', '.join(MEASURES)}"
        ) from None


def _by_rank(found: Ranking) -> dict[str, float]:
    """Scores that fall with rank: the order is ours, whatever a provider does about ties."""
    return {doc_id: float(-rank) for rank, doc_id in enumerate(found.doc_ids)}
