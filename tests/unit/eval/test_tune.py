"""Fusion is fitted on one half of the queries and judged on the other."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.__main__ import main
from eval.commands import Target, tune_target
from eval.datasets import Dataset
from eval.statistics import compare_paired
from eval.tune import Tuned, candidates, neighbours, split, tune, write_fusion
from rag.errors import ConfigurationError, EvaluationError
from rag.retrieval.fusion import METHODS, make_fusion

NAMES = """
사과 배추 감자 양파 마늘 고추 호박 당근 오이 상추 시금치 보리 토마토 딸기 옥수수
참깨 들깨 수박 참외 포도 복숭아 자두 살구 매실
"""
SUBJECTS = NAMES.split()


def write_dataset(root: Path) -> Path:
    """Codes that only keywords can tell apart: the encoder knows no Korean, and every text says
    the same but for the name. The sparse leg is right every time.
    """
    (root / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"d{i}", "title": "", "text": f"{name} 농사는 봄에 시작하고 가을에 거둔다."}
        for i, name in enumerate(SUBJECTS)
    ]
    queries = [{"_id": f"q{i}", "text": f"{name} 농사"} for i, name in enumerate(SUBJECTS)]
    for kind, lines in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (root / f"{kind}.jsonl").write_text(text, encoding="utf-8")
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(len(SUBJECTS)))
    (root / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", "utf-8")
    return root


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, exported_encoder: Path) -> Target:
    root = tmp_path_factory.mktemp("tune")
    return Target(
        dataset=write_dataset(root / "codes"),
        cache=root / "cache",
        indexing={"encoder": str(exported_encoder)},
        running={"backend": "onnx"},
        fusion={"method": "weighted", "dense_weight": 1.0},
    )


@pytest.fixture(scope="module")
def tuned(target: Target) -> Tuned:
    return tune_target(target, seed=1)


def test_the_better_leg_gets_the_weight(tuned: Tuned) -> None:
    assert tuned.baseline == {"method": "weighted", "dense_weight": 1.0}
    assert tuned.fusion.get("dense_weight", 0.5) < 0.9
    found = tuned.comparison
    assert found.mean_b == 1.0
    assert found.mean_a < 0.8
    assert found.p < 0.05
    assert (found.losses, found.n) == (0, 12)
    assert tuned.queries == {"training": 12, "held_out": 12}
    assert max(tuned.training.values()) == tuned.training[json.dumps(tuned.fusion, sort_keys=True)]


def test_a_fusion_that_is_best_already_stays(target: Target, tuned: Tuned) -> None:
    again = tune_target(replace(target, fusion=tuned.fusion), seed=1)
    assert again.fusion == tuned.fusion == again.baseline
    assert (again.comparison.difference, again.comparison.p) == (0.0, 1.0)


def test_every_method_is_tried_and_everything_tried_exists(tuned: Tuned) -> None:
    tried = list(candidates())
    assert {reference["method"] for reference in tried} == set(METHODS)
    assert {r["k"] for r in tried if r["method"] == "rrf"} == {5, 20, 60}
    for text in tuned.training:
        make_fusion(json.loads(text))
    assert list(neighbours({"method": "weighted", "dense_weight": 1.0})) == [
        {"method": "weighted", "dense_weight": 0.9}
    ]


def test_the_split_is_drawn_by_its_seed() -> None:
    ids = [f"q{i}" for i in range(40)]
    dataset = Dataset("d", dict.fromkeys(ids, "x"), {q: {"d": 1} for q in ids})
    first, second = split(dataset, 1, 0.25), split(dataset, 1, 0.25)
    assert [list(part.qrels) for part in first] == [list(part.qrels) for part in second]
    assert [len(part.queries) for part in first] == [10, 30]
    assert set(first[0].queries) | set(first[1].queries) == set(ids)
    assert set(first[0].queries) != set(split(dataset, 2, 0.25)[0].queries)
    with pytest.raises(EvaluationError, match="4 to train on and 36 to hold out"):
        split(dataset, 1, 0.1)


class Overfitted:
    """A system that likes one fusion on the training queries alone."""

    def __init__(self, right: set[str]) -> None:
        self.right = right

    def rank(self, dataset: Dataset, modes: Any, texts: Any, advance: Any) -> Any:
        from eval.runs import ranking

        one = np.ones(1, dtype=np.float32)
        return {
            modes[0]: {
                q: ranking(q, ["d" if q in self.right else "x"], one) for q in dataset.queries
            }
        }


def test_what_loses_on_the_held_out_queries_is_not_written(tmp_path: Path) -> None:
    ids = [f"q{i}" for i in range(40)]
    dataset = Dataset("d", dict.fromkeys(ids, "x"), {q: {"d": 1} for q in ids})
    training, held_out = split(dataset, 3, 0.5)
    baseline = {"method": "weighted", "dense_weight": 0.5}

    def make(fusion: Any) -> Any:
        return Overfitted(set(held_out.queries if fusion == baseline else training.queries))

    tuned = tune(dataset, make, baseline, seed=3)
    assert tuned.fusion != baseline
    assert tuned.comparison.difference == -1.0
    assert tuned.loses
    assert not write_fusion(tmp_path / "fusion.json", tuned)
    assert not (tmp_path / "fusion.json").exists()
    same = compare_paired(np.ones(3), np.ones(3))
    assert write_fusion(tmp_path / "deep" / "fusion.json", replace(tuned, comparison=same))
    assert json.loads((tmp_path / "deep" / "fusion.json").read_text()) == tuned.fusion


def test_the_command_on_a_bundle(
    sample_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, found = tmp_path / "fusion.json", tmp_path / "all.json"
    command = ["rag-eval", "tune", "--bundle", str(sample_bundle), "--split-seed", "4"]
    command += ["--out", str(out), "--json", str(found), "--quiet"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    raw = json.loads(found.read_text())
    assert raw["queries"] == {"training": 27, "held_out": 27}
    loses = raw["held_out"]["difference"] < 0
    assert bool(ended.value.code) == loses
    assert out.exists() != loses
    assert "held out, 27 queries" in capsys.readouterr().out


def test_a_service_is_not_tuned() -> None:
    with pytest.raises(ConfigurationError, match="not on a service"):
        tune_target(Target(url="http://x"), seed=1)
