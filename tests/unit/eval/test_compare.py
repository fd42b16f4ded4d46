"""Results compared from files, and the gate's exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main
from eval.compare import biggest_changes, pairs
from eval.gate import gate
from eval.results import Result, read_result, write_folder, write_result
from eval.runs import Ranking
from rag.errors import EvaluationError

IDS = [f"q{i}" for i in range(60)]
BASE = np.linspace(0.2, 0.8, 60)


def result(scores: Sequence[float] | np.ndarray, *, dataset: str = "tiny") -> Result:
    values = [float(score) for score in scores]
    mean = sum(values) / len(values)
    return Result(
        dataset=dataset,
        split="test",
        query_ids=IDS[: len(values)],
        results={"hybrid": {"nDCG@10": mean}, "dense": {"nDCG@10": mean}},
        intervals={"hybrid": {"nDCG@10": (mean, mean)}, "dense": {"nDCG@10": (mean, mean)}},
        per_query={"hybrid": {"nDCG@10": values}, "dense": {"nDCG@10": values}},
    )


def run_gate(tmp_path: Path, candidate: Result, *options: str) -> int:
    write_result(tmp_path / "a.json", result(BASE))
    write_result(tmp_path / "b.json", candidate)
    paths = ["--baseline", str(tmp_path / "a.json"), "--candidate", str(tmp_path / "b.json")]
    return cli("gate", *paths, *options)


def cli(*arguments: str) -> int:
    import sys

    old, sys.argv = sys.argv, ["rag-eval", *arguments]
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.argv = old
    return 0


def noise(size: float) -> np.ndarray:
    return np.random.default_rng(5).normal(0, size, 60)


@pytest.mark.parametrize(
    ("scores", "options", "code"),
    [
        (BASE, [], 0),
        (BASE + 0.05, [], 0),
        (BASE - 0.05 + noise(0.01), [], 1),
        (BASE - 0.05 + noise(0.01), ["--margin", "0.06"], 0),
        (BASE - 0.005 + noise(0.001), [], 0),
        (BASE - 0.005 + noise(0.001), ["--margin", "0"], 1),
        (BASE + noise(0.2), [], 0),
        (BASE + noise(0.2), ["--strict"], 1),
        (BASE, ["--strict", "--margin", "0"], 0),
    ],
)
def test_the_gate_closes_on_a_significant_loss_beyond_the_margin(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scores: np.ndarray,
    options: list[str],
    code: int,
) -> None:
    assert run_gate(tmp_path, result(scores), *options) == code
    printed = capsys.readouterr()
    assert printed.out.startswith("FAIL: " if code else "pass: ")
    assert printed.out.count("\n") == 1
    assert not printed.err


def test_a_gate_over_unlike_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_gate(tmp_path, result(BASE, dataset="other")) == 1
    assert "compare results of the same data set" in capsys.readouterr().err
    assert run_gate(tmp_path, result(BASE[:50])) == 1
    assert "differ in 10 queries" in capsys.readouterr().err
    assert run_gate(tmp_path, result(BASE), "--measure", "MAP") == 1
    assert "has no measure 'MAP'" in capsys.readouterr().err
    assert run_gate(tmp_path, result(BASE), "--margin", "-1") == 1
    assert "margin is -1" in capsys.readouterr().err


def test_the_verdict_says_whether_a_loss_is_ruled_out() -> None:
    fine = gate(BASE, BASE + 0.01, margin=0.01)
    assert fine.passed
    assert fine.non_inferior
    unsure = gate(BASE, BASE + noise(0.2), margin=0.001)
    assert unsure.passed
    assert not unsure.non_inferior


def test_queries_are_paired_by_id_not_by_place(tmp_path: Path) -> None:
    reversed_result = result(BASE[::-1])
    reversed_result.query_ids.reverse()
    write_result(tmp_path / "a.json", result(BASE))
    write_result(tmp_path / "b.json", reversed_result)
    for a, b in pairs(str(tmp_path / "a.json"), str(tmp_path / "b.json")):
        assert not biggest_changes(a, b, "nDCG@10", 5)


def test_modes_are_named_after_the_path(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    write_result(Path(path), result(BASE))
    modes = lambda a, b: [(x.mode, y.mode) for x, y in pairs(a, b)]  # noqa: E731
    assert modes(path, path) == [("hybrid", "hybrid"), ("dense", "dense")]
    assert modes(f"{path}:dense", f"{path}:hybrid") == [("dense", "hybrid")]
    assert modes(f"{path}:dense", path) == [("dense", "dense")]


def test_the_most_changed_queries_come_with_their_passages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = BASE.copy()
    changed[7] += 0.1
    changed[3] -= 0.15
    for name, scores, first in (("a", BASE, "d1"), ("b", changed, "d2")):
        order = [first, "d1" if first == "d2" else "d2"]
        ranked = Ranking(order, np.array([2, 1], dtype=np.float32))
        write_folder(
            tmp_path / name,
            result(scores),
            {"hybrid": {"q3": ranked, "q7": ranked}, "dense": {"q3": ranked}},
            {"q3": "수소 결합이란?", "q7": "lift"},
            {"q3": {"d2": 1}},
            {"d1": ("One", "first [text]"), "d2": ("둘", "두 번째")},
        )
    a, b = pairs(str(tmp_path / "a"), str(tmp_path / "b"))[0]
    found = biggest_changes(a, b, "nDCG@10", 5)
    assert [change.query_id for change in found] == ["q3", "q7"]
    assert found[0].text == "수소 결합이란?"
    assert [p.doc_id for p in found[0].passages_a] == ["d1", "d2"]
    assert [p.doc_id for p in found[0].passages_b] == ["d2", "d1"]
    assert (found[0].passages_b[0].title, found[0].passages_b[0].grade) == ("둘", 1)
    assert found[0].passages_b[0].legs == {"dense": 1}
    assert cli("compare", str(tmp_path / "a"), str(tmp_path / "b")) == 0
    printed = capsys.readouterr().out
    assert "수소 결합이란?" in printed
    assert "first [text]" in printed


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    written = result(BASE)
    write_result(tmp_path / "r.json", written)
    found = read_result(tmp_path / "r.json")
    assert found.scores("hybrid", "nDCG@10") == pytest.approx(BASE, abs=1e-6)
    assert found.query_ids == written.query_ids


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"dataset": "x", "results": {}}'])
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(EvaluationError) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
