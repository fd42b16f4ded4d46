"""Measures against values worked out by hand, and against ir-measures asked directly."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest

from eval.measures import latency, means, per_query, recall_at_depths
from eval.runs import Ranking, Run, ranking
from rag.errors import ConfigurationError, EvaluationError

QRELS = {"q1": {"a": 2, "b": 1, "c": 0, "z": 1}, "q2": {"x": 1}, "q3": {"y": 1}}


def ranked(*doc_ids: str) -> Ranking:
    return Ranking(doc_ids, np.linspace(1, 0, len(doc_ids), dtype=np.float32))


RUN: Run = {"q1": ranked("c", "a", "u", "b"), "q2": ranked("x"), "unjudged": ranked("a")}


def test_measures_are_what_their_formulas_give() -> None:
    scores = per_query(RUN, QRELS)
    dcg = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    expected = {
        "nDCG@10": dcg / ideal,
        "Recall@100": 2 / 3,
        "MRR@10": 1 / 2,
        "MAP": (1 / 2 + 2 / 4) / 3,
        "P@1": 0.0,
        "P@5": 2 / 5,
        "P@10": 2 / 10,
        "Judged@10": 3 / 4,
    }
    assert {name: values[0] for name, values in scores.items()} == pytest.approx(expected)
    assert [scores[name][1] for name in ("nDCG@10", "Recall@100", "MRR@10", "MAP")] == [1.0] * 4


def test_a_query_missing_from_the_run_scores_0_and_counts() -> None:
    scores = per_query(RUN, QRELS)
    assert all(values.shape == (3,) and values[2] == 0.0 for values in scores.values())
    assert means(scores)["MRR@10"] == pytest.approx((0.5 + 1 + 0) / 3)
    empty = per_query({"q2": ranked()}, QRELS)
    assert all(not values.any() for values in empty.values())


def test_they_equal_ir_measures_on_a_random_run() -> None:
    rng = np.random.default_rng(7)
    docs = [f"d{i}" for i in range(300)]
    qrels = {
        f"q{q}": {docs[d]: int(rng.integers(0, 4)) for d in rng.choice(300, 30, replace=False)}
        for q in range(300)
    }
    run = {
        q: ranked(*(docs[d] for d in rng.choice(300, 150, replace=False)))
        for q in list(qrels)[:290]
    }
    ours = means(per_query(run, qrels))
    names = {"MRR@10": "RR@10", "MAP": "AP", "Recall@100": "R@100"}
    plain = {q: dict(zip(r.doc_ids, r.scores.tolist(), strict=True)) for q, r in run.items()}
    for name, value in ours.items():
        measure = ir_measures.parse_measure(names.get(name, name))
        theirs = [m.value for m in ir_measures.iter_calc([measure], qrels, plain)]
        assert value == pytest.approx(sum(theirs) / len(qrels), abs=1e-9), name


def test_equal_scores_are_ranked_as_the_run_ranks_them() -> None:
    tied = {"q2": Ranking(["a", "b", "x"], np.ones(3, dtype=np.float32))}
    assert per_query(tied, QRELS, ["MRR@10"])["MRR@10"][1] == pytest.approx(1 / 3)


def test_the_document_with_the_querys_own_id_is_not_a_hit() -> None:
    found = ranking("d1", ["d1", "d2", "d1", "d3"], np.array([4, 3, 2, 1], dtype=np.float32))
    assert list(found.doc_ids) == ["d2", "d3"]
    assert found.scores.tolist() == [3.0, 1.0]


def test_a_document_ranks_where_its_best_passage_does() -> None:
    found = ranking("q", ["b", "a", "b", "a", "c"], np.array([9, 8, 7, 6, 5], dtype=np.float32))
    assert list(found.doc_ids) == ["b", "a", "c"]
    assert found.scores.tolist() == [9.0, 8.0, 5.0]


def test_recall_never_falls_with_depth() -> None:
    curve = recall_at_depths(RUN, QRELS, [1, 2, 4, 100])
    assert curve == pytest.approx({1: 1 / 3, 2: 4 / 9, 4: 5 / 9, 100: 5 / 9})


@pytest.mark.parametrize("name", ["nDGC@10", "nDCG@x", ""])
def test_an_unknown_measure_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no measure"):
        per_query(RUN, QRELS, [name])


def test_latency_gives_percentiles() -> None:
    assert latency(list(range(101))) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "n": 101}
    with pytest.raises(EvaluationError, match="no query was timed"):
        latency([])
