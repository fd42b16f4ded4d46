"""Fits fusion on a part of the queries, and says on the other part what that is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from eval.datasets import Dataset
from eval.measures import Float64, per_query
from eval.rankers import Ranker
from eval.statistics import Comparison, compare_paired
from eval.vectors import Advance
from rag.errors import EvaluationError, InvalidRequest
from rag.retrieval.fusion import METHODS, make_fusion
from rag.types import Mode

MEASURE = "nDCG@10"
LEAST = 10
"""Queries that each part must have at least; fewer say nothing."""
_WEIGHTS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
_STEP = 0.1
_CONSTANTS = (5, 20, 60)

MakeRanker = Callable[[Mapping[str, Any]], Ranker]
"""The system under evaluation with that fusion."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found. `fusion` is the best of `tried` on the training queries, `baseline` what it
    was compared with; `training` maps each fusion tried, as JSON, to its mean there. `comparison`
    is the best (B) against the baseline (A) on the held-out queries.
    """

    fusion: dict[str, Any]
    baseline: dict[str, Any]
    training: dict[str, float]
    comparison: Comparison
    measure: str
    queries: dict[str, int]

    @property
    def loses(self) -> bool:
        """Whether the held-out mean is below the baseline's."""
        return self.comparison.difference < 0

    def to_json(self) -> dict[str, Any]:
        return {
            "fusion": self.fusion,
            "baseline": self.baseline,
            "measure": self.measure,
            "queries": self.queries,
            "held_out": {**asdict(self.comparison), "n": self.comparison.n},
            "training": self.training,
        }


def candidates() -> Iterator[dict[str, Any]]:
    """Every method that there is, as it is and with each weight and constant that it knows."""
    for method in METHODS:
        plain: dict[str, Any] = {"method": method}
        weights = [{"dense_weight": weight} for weight in _WEIGHTS]
        constants = [{"k": constant} for constant in _CONSTANTS]
        weights = weights if _is_known(plain | weights[0]) else []
        constants = constants if _is_known(plain | constants[0]) else []
        if not weights and not constants:
            yield plain
        for weight, constant in product(weights or [{}], constants or [{}]):
            yield plain | weight | constant


def neighbours(reference: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same fusion with the weight of the dense leg a step lower and higher."""
    weight = reference.get("dense_weight", 0.5)
    for moved in (round(weight - _STEP, 2), round(weight + _STEP, 2)):
        if _is_known(found := {**reference, "dense_weight": moved}):
            yield found


def split(dataset: Dataset, seed: int, share: float) -> tuple[Dataset, Dataset]:
    """The judged queries, drawn at random into (training, held-out); `share` is the first's.

    Raises EvaluationError if either part has fewer than LEAST queries.
    """
    ids = sorted(dataset.judged())
    order = np.random.default_rng(seed).permutation(len(ids))
    cut = round(len(ids) * share)
    parts = [{ids[i] for i in order[:cut]}, {ids[i] for i in order[cut:]}]
    if min(map(len, parts)) < LEAST:
        raise EvaluationError(
            f"{dataset.name} has {len(ids)} judged queries, {len(parts[0])} to train on and"
            f" {len(parts[1])} to hold out; each part needs {LEAST}"
        )
    return _part(dataset, parts[0]), _part(dataset, parts[1])


def tune(
    dataset: Dataset,
    make_ranker: MakeRanker,
    baseline: Mapping[str, Any],
    *,
    seed: int,
    share: float = 0.5,
    advance: Advance = lambda stage, done, total: None,
) -> Tuned:
    """The fusion with the best mean nDCG@10 on the training queries, tested on the others.

    The baseline is among those tried, and wins ties. Raises EvaluationError for too few queries.
    """
    training, held_out = split(dataset, seed, share)
    means: dict[str, float] = {}

    def best_of(tried: Sequence[dict[str, Any]], stage: str) -> dict[str, Any]:
        for reference in tried:
            if _key(reference) not in means:
                means[_key(reference)] = float(_scores(training, make_ranker(reference)).mean())
            advance(stage, 1, len(tried))
        return max(tried, key=lambda reference: means[_key(reference)])

    best = best_of([dict(baseline), *candidates()], "try fusions")
    best = best_of([best, *neighbours(best)], "refine")
    comparison = compare_paired(
        _scores(held_out, make_ranker(baseline)), _scores(held_out, make_ranker(best)), seed=seed
    )
    return Tuned(
        fusion=best,
        baseline=dict(baseline),
        training=means,
        comparison=comparison,
        measure=MEASURE,
        queries={"training": len(training.qrels), "held_out": len(held_out.qrels)},
    )


def write_fusion(path: Path, tuned: Tuned) -> bool:
    """Writes the fusion for `rag-indexer build --fusion`, unless it loses; whether it did."""
    if tuned.loses:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tuned.fusion) + "\n", encoding="utf-8")
    return True


def _part(dataset: Dataset, ids: set[str]) -> Dataset:
    return replace(
        dataset,
        queries={q: text for q, text in dataset.queries.items() if q in ids},
        qrels={q: judged for q, judged in dataset.qrels.items() if q in ids},
    )


def _scores(dataset: Dataset, ranker: Ranker) -> Float64:
    runs = ranker.rank(dataset, [Mode.HYBRID], {}, _silent)
    return per_query(runs[Mode.HYBRID], dataset.qrels, [MEASURE])[MEASURE]


def _silent(stage: str, done: int, total: int) -> None:
    return


def _is_known(reference: Mapping[str, Any]) -> bool:
    try:
        make_fusion(reference)
    except InvalidRequest:
        return False
    return True


def _key(reference: Mapping[str, Any]) -> str:
    return json.dumps(dict(reference), sort_keys=True)
