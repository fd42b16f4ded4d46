"""A test set from a bundle, with a fake endpoint that asks about what it is shown."""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.answers import load_questions
from eval.chat import ChatOptions
from eval.commands import question_set
from eval.synth import draw, parse_pair, synthesise, write_set
from rag.errors import EvaluationError
from rag.retrieval.opening import Opened, open_retriever


@pytest.fixture(scope="module")
def opened(sample_bundle: Path) -> Opened:
    return open_retriever(str(sample_bundle))


def about(messages: list[dict[str, str]], number: int) -> str:
    """A question made of the passage's own words, which finds it."""
    text = messages[1]["content"].partition("Passage:\n")[2]
    words = " ".join(text.split()[:30])
    return json.dumps({"question": f"{words}?", "answer": words}, ensure_ascii=False)


def options(endpoint: Any) -> ChatOptions:
    return ChatOptions(endpoint.url, "fake", concurrency=1)


def test_passages_are_drawn_over_languages_and_documents(opened: Opened) -> None:
    drawn = list(draw(opened, 7))
    ids = [chunk.chunk_id for chunk in drawn]
    assert len(set(ids)) == len(ids) > 100
    assert ids == [chunk.chunk_id for chunk in draw(opened, 7)]
    assert ids != [chunk.chunk_id for chunk in draw(opened, 8)]
    first = drawn[:30]
    assert len({chunk.doc_id for chunk in first}) == 30
    documents = Counter(record.lang for record in opened.bundle.store.records())
    share = documents["ko"] / documents.total()
    assert abs(Counter(c.lang for c in first)["ko"] - 30 * share) <= 1


def test_a_set_is_written_that_the_other_commands_read(
    opened: Opened, fake_endpoint: Any, tmp_path: Path
) -> None:
    fake_endpoint.say = about
    found = synthesise(opened, options(fake_endpoint), count=6, seed=3)
    assert len(found.pairs) == 6
    assert {pair.chunk.lang for pair in found.pairs} == {"en", "ko"}
    write_set(tmp_path / "set", found, {"model": "fake"})
    dataset = question_set(tmp_path / "set" / "queries.jsonl", None)
    questions, notes = load_questions(dataset)
    assert notes == []
    for question, pair in zip(questions, found.pairs, strict=True):
        assert question.text == pair.question
        assert question.golds == (pair.answer,)
        assert question.judged == {pair.chunk.doc_id: 2}
        assert question.lang == pair.chunk.lang
    report = json.loads((tmp_path / "set" / "report.json").read_text())
    assert report["kept"] == 6
    assert sum(report["languages"].values()) == 6


def test_what_is_dropped_is_counted_by_reason(opened: Opened, fake_endpoint: Any) -> None:
    asked = [chunk.text for chunk in islice(draw(opened, 5), 9)]
    repeated = {"question": " ".join(asked[0].split()[:30]).upper() + "!!", "answer": "x"}
    said = {
        1: "Here is a question: who?",
        2: '{"question": null}',
        3: "500",
        4: json.dumps(repeated),
        5: '{"question": "What do penguins eat in Antarctica?", "answer": "krill"}',
    }
    fake_endpoint.say = lambda messages, number: said.get(number) or about(messages, number)
    found = synthesise(opened, options(fake_endpoint), count=3, seed=5, top_k=3)
    assert len(found.pairs) == 3
    expected = {"failed": 1, "malformed": 1, "declined": 1, "duplicate": 1, "not found": 1}
    assert found.dropped == expected
    assert found.asked == 8


def test_the_same_question_in_other_words_is_a_duplicate(
    opened: Opened, fake_endpoint: Any
) -> None:
    said = [
        "How long does SageMaker wait between SIGTERM and SIGKILL when stopping a container?",
        "How long does SageMaker wait between SIGTERM and SIGKILL when it stops the container?",
    ]
    fake_endpoint.say = lambda messages, number: json.dumps(
        {"question": said[min(number, 1)], "answer": "30 seconds"}
    )
    found = synthesise(opened, options(fake_endpoint), count=40, seed=1, top_k=400)
    assert [pair.question for pair in found.pairs] == said[:1]
    assert found.dropped["duplicate"] == found.asked - 1


def test_korean_questions_that_an_english_encoder_confuses_are_kept(
    opened: Opened, fake_endpoint: Any
) -> None:
    said = ["새 이미지는 무슨 요일에 배포하나요?", "야간 색인이 실패한 원인은 무엇인가요?"]
    fake_endpoint.say = lambda messages, number: json.dumps(
        {"question": said[number % 2], "answer": "답"}, ensure_ascii=False
    )
    found = synthesise(opened, options(fake_endpoint), count=2, seed=1, top_k=400)
    assert {pair.question for pair in found.pairs} == set(said)


@pytest.mark.parametrize(("said", "reason"), [("500", "broken"), ("nonsense", "no reply was")])
def test_nothing_but_failures_is_an_error(
    opened: Opened, fake_endpoint: Any, said: str, reason: str
) -> None:
    fake_endpoint.say = lambda messages, number: said
    with pytest.raises(EvaluationError, match=rf"none of 6 requests gave a question: .*{reason}"):
        synthesise(opened, options(fake_endpoint), count=2, seed=1)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"question": " 누구? ", "answer": "그"}', ("누구?", "그")),
        ('```json\n{"question": "Who?", "answer": "He"}\n```', ("Who?", "He")),
        ('{"question": null}', "declined"),
        ('{"question": "Who?"}', "malformed"),
        ('{"question": "", "answer": "x"}', "malformed"),
        ('{"question": ["Who?"], "answer": "x"}', "malformed"),
        ("Who?", "malformed"),
    ],
)
def test_replies_are_read_strictly(reply: str, expected: Any) -> None:
    assert parse_pair(reply) == expected


def test_the_command(
    sample_bundle: Path,
    fake_endpoint: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    fake_endpoint.say = about
    command = ["rag-eval", "synth", "--bundle", str(sample_bundle), "--url", fake_endpoint.url]
    command += ["--model", "fake", "--out", str(tmp_path / "set"), "-n", "2", "--quiet"]
    for code, channel, words in ((0, "out", "2 questions of"), (1, "err", "already holds")):
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        assert words in getattr(capsys.readouterr(), channel)
