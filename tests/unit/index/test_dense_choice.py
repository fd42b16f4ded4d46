from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BundleMixed, ConfigurationError
from rag.index.dense import DenseLeg, build_chosen
from rag.index.dense.build import FILE, REFINEMENT, build_dense
from rag.index.dense.choice import candidates, memory_needed, tune
from rag.index.dense.sample import Sample, exact_rows, recall, take_sample
from rag.index.dense.spec import make_spec
from rag.types import Float32


def clustered(rows: int, dimension: int = 32, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, rows // 40), dimension))
    vectors = centres[rng.integers(0, len(centres), rows)]
    vectors = vectors + 0.6 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def names(dimension: int, rows: int, budget: int | None) -> list[str]:
    return [spec.name for spec in candidates(dimension, rows, budget)]


def test_what_is_tried_depends_on_count_and_memory() -> None:
    assert names(384, 5_000, None)[0] == "flat float32"
    assert names(384, 5_000, 5_000 * 800) == ["flat float16", "flat int8"]
    large = names(384, 1_000_000, None)
    assert large == [
        "ivf pq4, refined by float32",
        "hnsw int8, refined by float32",
        "ivf pq, refined by float32",
    ]
    assert names(384, 1_000_000, 500_000_000) == [large[0], large[2]]
    assert names(384, 1_000_000, 80_000_000) == large[2:]
    assert names(33, 1_000_000, None)[0] == "ivf int8, refined by float32"
    with pytest.raises(ConfigurationError, match=r"no index of 1000000 passages fits .* takes"):
        names(384, 1_000_000, 1_000_000)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_planned_memory_is_what_the_file_takes(tmp_path: Path, kind: str, storage: str) -> None:
    vectors = clustered(4000)
    options: dict[str, Any] = {"kind": kind, "storage": storage, "refine": "none"}
    build_dense(tmp_path, vectors, **options)
    planned = memory_needed(make_spec(32, 4000, **options), 4000)
    assert (tmp_path / FILE).stat().st_size == pytest.approx(planned, rel=0.03)


def test_few_passages_are_scanned_exactly(tmp_path: Path) -> None:
    vectors = clustered(600)
    built = build_chosen(tmp_path, vectors)
    assert built.met
    assert built.reference == {
        "kind": "auto",
        "dimension": 32,
        "metric": "inner_product",
        "recall_target": 0.98,
        "memory_budget": None,
    }
    assert built.measured["chosen"]["kind"] == "flat"
    chosen = [line for line in built.measured["table"] if line["chosen"]]
    assert [line["recall_at_10"] for line in chosen] == [1.0]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["dense", "index.faiss"]
    leg = DenseLeg.open(tmp_path, built.reference, built.measured)
    assert leg.search(vectors[:3], 1, None).rows[:, 0].tolist() == [0, 1, 2]


def test_many_passages_get_tuned_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.index.dense.choice.EXACT_UP_TO", 1000)
    vectors, told = clustered(6000), []
    built = build_chosen(tmp_path, vectors, note=lambda _, **fields: told.append(fields["index"]))
    assert built.met
    assert built.measured["chosen"]["storage"] == "pq4"
    assert "nprobe" not in built.measured["chosen"]
    assert told == ["ivf pq4, refined by float32"]
    leg = DenseLeg.open(tmp_path, built.reference, json.loads(json.dumps(built.measured)))
    assert leg.spec.numbers["nprobe"] == built.measured["search"]["nprobe"]
    assert recall(leg, take_sample(vectors), 10) >= 0.98
    assert leg.keeps_float32
    assert np.array_equal(leg.vectors(np.arange(6000)), vectors)
    assert (tmp_path / REFINEMENT).is_file()


def test_a_small_budget_gets_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.index.dense.choice.EXACT_UP_TO", 1000)
    built = build_chosen(tmp_path, clustered(6000), memory_budget=6000 * 15 + 20_000)
    assert built.measured["chosen"]["storage"] == "pq"
    assert built.measured["table"][-1]["chosen"]
    assert DenseLeg.open(tmp_path, built.reference, built.measured).rows == 6000


def test_a_graph_is_tried_where_lists_do_not_find_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.index.dense.choice.EXACT_UP_TO", 1000)
    monkeypatch.setattr("rag.index.dense.choice.NPROBE", (1,))
    built = build_chosen(tmp_path, clustered(3000), recall_target=0.95)
    tried = [line["index"] for line in built.measured["table"][1:]]
    assert tried == ["ivf pq4, refined by float32", "hnsw int8, refined by float32"]
    assert built.measured["chosen"]["kind"] == "hnsw"


def test_a_target_that_nothing_reaches_keeps_the_best(tmp_path: Path) -> None:
    """Product quantisation to four bytes, nothing finer beside it."""
    built = build_chosen(
        tmp_path, clustered(3000), kind="ivf", storage="pq", pq_bytes=4, refine="none",
        recall_target=0.99,
    )  # fmt: skip
    assert not built.met
    assert not built.measured["met"]
    assert 0 < built.measured["table"][-1]["recall_at_10"] < 0.99
    assert DenseLeg.open(tmp_path, built.reference, built.measured).rows == 3000


def test_a_named_index_is_tuned_for_a_target_and_not_otherwise(tmp_path: Path) -> None:
    vectors = clustered(3000)
    plain = build_chosen(tmp_path, vectors, kind="hnsw")
    assert (plain.reference["ef_search"], plain.measured) == (128, {})
    tuned = build_chosen(tmp_path, vectors, kind="hnsw", recall_target=0.9)
    assert "ef_search" not in tuned.reference
    assert tuned.reference["recall_target"] == 0.9
    leg = DenseLeg.open(tmp_path, tuned.reference, tuned.measured)
    assert leg.spec.numbers["ef_search"] == tuned.measured["search"]["ef_search"] < 128


def test_the_version_does_not_depend_on_what_was_measured(tmp_path: Path) -> None:
    vectors = clustered(2000)
    of_passages = build_chosen(tmp_path / "a", vectors, kind="hnsw", recall_target=0.95)
    queries = clustered(30, seed=9)
    of_queries = build_chosen(
        tmp_path / "b", vectors, kind="hnsw", recall_target=0.95, queries=queries
    )
    assert of_passages.reference == of_queries.reference
    assert of_queries.measured["sample"] == "queries that were given"


def test_tuning_takes_the_least_effort_that_reaches_the_target(tmp_path: Path) -> None:
    vectors = clustered(5000)
    spec = make_spec(32, 5000, kind="ivf", lists=50)
    build_dense(tmp_path, vectors, kind="ivf", lists=50)
    sample = take_sample(vectors)
    easy, low = tune(tmp_path, spec, sample, 0.6)
    hard, high = tune(tmp_path, spec, sample, 1.0)
    assert low >= 0.6
    assert high == 1.0
    assert easy.numbers["nprobe"] < hard.numbers["nprobe"]


def test_the_sample_is_exact_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.index.dense.blocks.ROWS_AT_ONCE", 700)
    vectors = clustered(3000)
    sample, again = take_sample(vectors), take_sample(vectors)
    assert np.array_equal(sample.queries, again.queries)
    assert np.allclose(np.linalg.norm(sample.queries, axis=1), 1, atol=1e-6)
    scores = sample.queries @ vectors.T
    best = np.argsort(-scores, axis=1)[:, :100]
    assert (np.sort(best, axis=1) == np.sort(sample.truth, axis=1)).mean() > 0.999
    own = (sample.queries * vectors[np.linspace(0, 2999, 256).astype(int)]).sum(axis=1)
    assert 0.5 < np.median(own) < 0.97


def test_recall_counts_what_is_there(tmp_path: Path) -> None:
    vectors = clustered(8)
    leg = DenseLeg.open(tmp_path, build_dense(tmp_path, vectors))
    truth = exact_rows(vectors, vectors, 10)
    assert (truth[:, 8:] == -1).all()
    assert recall(leg, Sample(vectors, truth, ""), 10) == 1.0
    wrong = np.where(truth >= 0, 7 - truth, -1)
    assert recall(leg, Sample(vectors, wrong, ""), 1) < 1.0


@pytest.mark.parametrize("rows", [0, 1, 2, 40])
def test_hardly_any_passages(tmp_path: Path, rows: int) -> None:
    built = build_chosen(tmp_path, clustered(40)[:rows])
    leg = DenseLeg.open(tmp_path, built.reference, built.measured)
    assert leg.rows == rows
    assert built.met


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage": "int8"}, "'auto' chooses storage itself"),
        ({"recall_target": 1.5}, "recall target is 1.5"),
        ({"memory_budget": 0}, "memory budget is 0"),
        ({"kind": "hnsw", "memory_budget": 5}, "for 'auto' to choose by"),
        ({"kind": "hnsw", "ef_search": 64, "recall_target": 0.9}, "ef_search would be tuned"),
        ({"kind": "hnsw", "storage": "pq"}, "does not store vectors as 'pq'"),
        ({"kind": "flat", "refine": "float32"}, "does not go with 'flat'"),
        ({"kind": "ivf", "storage": "pq", "pq_bytes": 5}, "does not divide the 32 dimensions"),
        ({"kind": "ivf", "storage": "pq4", "refine": "none"}, "'pq4' needs a finer copy"),
        ({"kind": "tree"}, "unknown dense index 'tree'"),
    ],
)
def test_demands_that_make_no_sense(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_chosen(tmp_path, clustered(50), **options)


def test_a_manifest_that_does_not_say_what_was_chosen_is_refused(tmp_path: Path) -> None:
    built = build_chosen(tmp_path, clustered(500))
    with pytest.raises(BundleMixed, match="does not say which index"):
        DenseLeg.open(tmp_path, built.reference)
    other = built.measured | {"chosen": built.measured["chosen"] | {"storage": "int8"}}
    with pytest.raises(BundleMixed, match="manifest says"):
        DenseLeg.open(tmp_path, built.reference, other)


def test_a_finer_copy_of_other_vectors_is_refused(tmp_path: Path) -> None:
    built = build_dense(tmp_path, clustered(300), kind="hnsw", storage="int8")
    refinement = (tmp_path / REFINEMENT).read_bytes()
    build_dense(tmp_path, clustered(200), kind="hnsw", storage="int8")
    (tmp_path / REFINEMENT).write_bytes(refinement)
    with pytest.raises(BundleMixed, match=r"refine\.faiss has 300 vectors"):
        DenseLeg.open(tmp_path, built)


def test_refinement_scores_by_the_finer_vectors(tmp_path: Path) -> None:
    vectors = clustered(2000)
    options: dict[str, Any] = {"storage": "pq", "refine": "float32", "nprobe": 51}
    reference = build_dense(tmp_path, vectors, kind="ivf", candidates=2000, **options)
    finer = DenseLeg.open(tmp_path, reference)
    exact = DenseLeg.open(tmp_path / "flat", build_dense(tmp_path / "flat", vectors))
    hits, truth = finer.search(vectors[:20], 50, None), exact.search(vectors[:20], 50, None)
    assert np.array_equal(hits.rows, truth.rows)
    assert np.array_equal(hits.scores, truth.scores)
    assert np.array_equal(finer.vectors(np.arange(5)), vectors[:5])
