"""A service answers an evaluation over HTTP as its bundle does here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.answerers import BundleAnswers, ServiceAnswers
from eval.answers import evaluate_answers
from eval.datasets import Dataset
from rag.errors import EvaluationError

DATASET = Dataset(
    "six",
    {"q1": "How do I reset the lamp?", "q2": "연차 휴가는 며칠인가요?", "q3": "Who built Rome?"},
    {"q1": {"en/lamp.md": 2}, "q2": {"ko/휴가.md": 2}},
    metadata={
        "q1": {"answer": "Hold the power button for ten seconds", "lang": "en"},
        "q2": {"answer": "15일", "lang": "ko"},
        "q3": {"answer": None, "lang": "en"},
    },
)


def test_a_service_answers_as_its_bundle(server: Any, bundle_folder: Path) -> None:
    remote = evaluate_answers(DATASET, ServiceAnswers(server.url))
    local = evaluate_answers(DATASET, BundleAnswers(str(bundle_folder)))
    assert remote.results == local.results
    assert [s.reply.text for s in remote.scored] == [s.reply.text for s in local.scored]
    found = remote.results["all"]
    assert found["contains gold"].mean == 1.0
    assert found["citation precision"].mean == 1.0
    assert found["abstention recall"].mean == 1.0
    assert remote.system["version"] == local.system["version"]
    assert remote.system["generator"] == "extractive"


def test_a_generator_that_fails_is_counted(launch: Any, endpoint: Any) -> None:
    with (
        launch(generator=endpoint.generator("500")) as running,
        pytest.raises(EvaluationError, match="no question could be answered; the first: generator"),
    ):
        evaluate_answers(DATASET, ServiceAnswers(running.url))


def test_what_is_no_service_is_said_in_one_line(server: Any) -> None:
    with pytest.raises(EvaluationError, match="does not answer"):
        ServiceAnswers("http://127.0.0.1:9").answer(["x"], lambda *_: None)
    with pytest.raises(EvaluationError, match="answered 404"):
        ServiceAnswers(f"{server.url}/elsewhere").answer(["x"], lambda *_: None)
    with pytest.raises(EvaluationError, match="answered 400: top_k is 999"):
        ServiceAnswers(server.url, top_k=999).answer(["x"], lambda *_: None)
