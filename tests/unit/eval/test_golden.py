"""Expected scores: a drift is found, either way; what is malformed or missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from eval.golden import FOLDER, read_golden, rerun, show_drifts
from rag.errors import EvaluationError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "two"
    (root / "qrels").mkdir(parents=True)
    documents = [{"_id": "a", "text": "apples and pears"}, {"_id": "b", "text": "배와 사과"}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in documents)
    (root / "corpus.jsonl").write_text(text, encoding="utf-8")
    (root / "queries.jsonl").write_text('{"_id": "1", "text": "pears"}\n', encoding="utf-8")
    (root / "qrels" / "test.tsv").write_text("1\ta\t1\n")
    return root.parent


@pytest.fixture
def folder(tmp_path: Path, exported_encoder: Path) -> Path:
    body = {
        "dataset": "two",
        "split": "test",
        "tolerance": 0.01,
        "conditions": {
            "english": {
                "options": {
                    "encoder": str(exported_encoder), "backend": "onnx", "analyzer": "english",
                },
                "expected": {"sparse": {"nDCG@10": 1.0, "MRR@10": 0.99}},
            }
        },
    }  # fmt: skip
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "two.yaml").write_text(yaml.safe_dump(body))
    return tmp_path / "golden"


def drifts(folder: Path, data: Path, **options: bool) -> bool:
    return not show_drifts(Console(quiet=True), rerun(data, folder=folder, **options))


def expect(folder: Path, score: float) -> None:
    path = folder / "two.yaml"
    body = yaml.safe_load(path.read_text())
    body["conditions"]["english"]["expected"]["sparse"]["MRR@10"] = score
    path.write_text(yaml.safe_dump(body))


def test_a_drift_either_way_is_found(folder: Path, data: Path) -> None:
    assert not drifts(folder, data)
    expect(folder, 0.98)
    assert drifts(folder, data)
    expect(folder, 1.02)
    assert drifts(folder, data)


def test_writing_puts_what_is_measured_in_its_place(folder: Path, data: Path) -> None:
    expect(folder, 0.5)
    before = read_golden(folder / "two.yaml")
    assert not drifts(folder, data, write=True)
    after = read_golden(folder / "two.yaml")
    assert after.conditions[0].expected == {"sparse": {"nDCG@10": 1.0, "MRR@10": 1.0}}
    assert after.conditions[0].options == before.conditions[0].options
    assert not drifts(folder, data)


def test_writing_makes_the_file_of_a_new_set(folder: Path, data: Path) -> None:
    (data / "two").rename(data / "new")
    checks = rerun(data, only=["new"], folder=folder, write=True)
    assert all(check.holds for check in checks)
    made = read_golden(folder / "new.yaml")
    assert (made.dataset, made.conditions[0].options) == ("new", {})
    assert made.conditions[0].expected["sparse"]["nDCG@10"] == 1.0


def test_a_set_that_is_not_there_is_named(folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="'two' is not below --data"):
        rerun(tmp_path, folder=folder)
    with pytest.raises(EvaluationError, match="no expected scores of 'three', only of two"):
        rerun(data, only=["three"], folder=folder)
    with pytest.raises(EvaluationError, match="no set was checked"):
        rerun(None, folder=folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read"),
        ("dataset: x", "must hold exactly"),
        ("{dataset: x, split: t, tolerance: 0, conditions: {a: {}}}", "has no 'expected'"),
        (
            "{dataset: x, split: t, tolerance: 0, conditions: {a: {options: {k9: 1}, expected: {}}}}",  # noqa: E501
            "'k9' is no option",
        ),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=problem) as caught:
        read_golden(path)
    assert "\n" not in str(caught.value)


def test_shipped_files_are_complete() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    assert files
    for path in files:
        golden = read_golden(path)
        assert golden.dataset == path.stem
        for condition in golden.conditions:
            for by_name in condition.expected.values():
                assert all(isinstance(score, float) for score in by_name.values())
