"""Run files keep our order for readers that sort by score alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.runs import Ranking, read_trec, strictly_descending, write_trec
from rag.errors import EvaluationError


@given(
    arrays(
        np.float32,
        st.integers(0, 40),
        elements=st.sampled_from([0.0, -0.0, 1.0, 1.0000001, 3.5, -2.0, 1e-38, 12345.678]),
    )
)
def test_lowered_scores_fall_strictly_and_hardly_move(scores: np.ndarray) -> None:
    scores = np.sort(scores)[::-1]
    lowered = strictly_descending(scores)
    assert (np.diff(lowered) < 0).all()
    assert lowered == pytest.approx(scores, rel=1e-5, abs=1e-37)


def test_a_run_survives_the_file(tmp_path: Path) -> None:
    scores = np.array([0.1, 0.1, 0.1, -7.25], dtype=np.float32)
    path = tmp_path / "hybrid.run"
    write_trec(path, {"질문 1": Ranking(["z", "a b", "문서/가", "y"], scores)}, tag="t")
    assert path.read_text(encoding="utf-8").splitlines()[1].split()[:4] == [
        "질문%201", "Q0", "a%20b", "2",
    ]  # fmt: skip
    found = read_trec(path)
    assert list(found["질문%201"].doc_ids) == ["z", "a%20b", "문서/가", "y"]
    assert found["질문%201"].scores.tolist() == strictly_descending(scores).tolist()


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.run"
    path.write_text("q Q0 d 1 0.5 tag\nq Q0 d\n")
    with pytest.raises(EvaluationError, match=r"x\.run:2: "):
        read_trec(path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_trec(tmp_path / "none.run")
