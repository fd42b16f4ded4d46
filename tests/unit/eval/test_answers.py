"""Answer quality over whole question sets: which questions each measure is over."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.answerers import BundleAnswers, GeneratorEndpoint, Reply
from eval.answers import evaluate_answers, load_questions, score
from eval.chat import ChatOptions, parse_object
from eval.commands import question_set
from eval.datasets import Dataset, load_sample
from eval.judge import Judged, judge, two_stage_interval
from rag.errors import ConfigurationError, EvaluationError
from rag.models.abstention import ABSTENTIONS
from rag.types import Citation

NONE = lambda stage, done, total: None  # noqa: E731
LAMP = Dataset(
    "lamp",
    {"en": "How long?", "ko": "며칠인가요?", "no": "Who?", "off": "Silent?"},
    {"en": {"a.md": 2, "b.md": 1}, "ko": {"c.md": 1}},
    metadata={
        "en": {"answer": "ten seconds", "lang": "en"},
        "ko": {"answer": ["15일", "보름"]},
        "no": {"answer": None, "lang": "en"},
        "off": {"lang": "en"},
    },
)


def scores(query_id: str, reply: Reply) -> dict[str, float | None]:
    questions = {question.query_id: question for question in load_questions(LAMP)[0]}
    return score(questions[query_id], reply).scores


def test_questions_say_what_their_answer_is() -> None:
    questions, notes = load_questions(LAMP)
    assert [(q.query_id, q.lang, q.golds) for q in questions] == [
        ("en", "en", ("ten seconds",)), ("ko", "ko", ("15일", "보름")), ("no", "en", ()),
    ]  # fmt: skip
    assert notes == ["1 questions say nothing of their answer and were not asked"]
    sample, notes = load_questions(load_sample())
    assert (len(sample), sum(not q.golds for q in sample), notes) == (60, 6, [])


@pytest.mark.parametrize("answer", ["", 7, ["x", 1]])
def test_an_answer_that_is_none_is_named(answer: Any) -> None:
    dataset = Dataset("d", {"q": "?x"}, {}, metadata={"q": {"answer": answer}})
    with pytest.raises(EvaluationError, match=r"metadata\.answer of 'q' in d"):
        load_questions(dataset)


def test_an_answer_is_scored_without_its_markers() -> None:
    cited = (Citation(0, 12, (1, 2), True),)
    found = scores("en", Reply("Ten seconds. [1, 2]", cited, ("a.md", "x.md", "b.md")))
    assert found == {
        "exact match": 1.0, "F1": 1.0, "contains gold": 1.0,
        "citation precision": 0.5, "citation recall": 1.0, "unsupported sentences": 0.0,
        "abstention precision": None, "abstention recall": None, "wrong abstentions": 0.0,
    }  # fmt: skip


def test_a_wrong_abstention_scores_0() -> None:
    found = scores("ko", Reply(ABSTENTIONS["ko"]))
    assert (found["F1"], found["citation recall"], found["wrong abstentions"]) == (0, 0, 1)
    assert found["abstention precision"] == 0
    assert found["citation precision"] is None
    assert found["unsupported sentences"] is None


def test_an_unanswerable_question_counts_only_for_abstention() -> None:
    right = scores("no", Reply(ABSTENTIONS["en"]))
    assert {k: v for k, v in right.items() if v is not None} == {
        "abstention precision": 1.0, "abstention recall": 1.0,
    }  # fmt: skip
    wrong = scores("no", Reply("Nobody. [1]", (Citation(0, 7, (1,), True),), ("a.md",)))
    assert {k: v for k, v in wrong.items() if v is not None} == {"abstention recall": 0.0}


def test_a_failure_is_wrong_and_no_abstention() -> None:
    found = scores("en", Reply(None, problem="refused"))
    assert (found["F1"], found["wrong abstentions"]) == (0.0, 0.0)
    assert found["abstention precision"] is None


def test_the_sample_answered_by_the_extractive_generator(
    sample_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "deep" / "answers.json"
    command = ["rag-eval", "answers", "--bundle", str(sample_bundle), "--json", str(out), "--quiet"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)
    raw = json.loads(out.read_text("utf-8"))
    assert raw["questions"] == {"answerable": 54, "unanswerable": 6, "failed": 0}
    assert set(raw["results"]) == {"all", "en", "ko"}
    found = raw["results"]["all"]
    assert found["citation precision"]["mean"] > 0.7
    assert found["unsupported sentences"]["mean"] < 0.1
    assert found["wrong abstentions"]["mean"] < 0.3
    for group in raw["results"].values():
        for estimate in group.values():
            assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
    assert found["F1"]["n"] == 54
    assert found["abstention recall"]["n"] == 6
    shown = capsys.readouterr().out
    assert "abstention recall" in shown
    assert "54 answerable questions" in shown


def test_an_endpoint_answers_for_a_bundle(sample_bundle: Path, fake_endpoint: Any) -> None:
    fake_endpoint.say = lambda messages, number: "500" if number == 0 else "Ten seconds. [1][9]"
    endpoint = GeneratorEndpoint(fake_endpoint.url, "fake")
    source = BundleAnswers(str(sample_bundle), top_k=2, endpoint=endpoint)
    result = evaluate_answers(LAMP, source)
    assert result.questions == {"answerable": 2, "unanswerable": 1, "failed": 1}
    assert "1 questions failed" in result.notes[1]
    assert result.scored[0].reply.text is None
    assert result.scored[1].reply.text == "Ten seconds. [1]"
    assert len(result.scored[1].reply.cited) == 1
    assert result.system["generator"] == "fake"
    fake_endpoint.say = lambda messages, number: "500"
    with pytest.raises(EvaluationError, match="no question could be answered"):
        evaluate_answers(LAMP, source)


class Said:
    """Replies that were given before: what is under test is what follows them."""

    def __init__(self, *replies: Reply) -> None:
        self.system = {"generator": "said"}
        self.replies = list(replies)

    def answer(self, questions: Any, advance: Any) -> list[Reply]:
        return self.replies


def by_answer(verdicts: dict[str, str]) -> Callable[[list[dict[str, str]], int], str]:
    def say(messages: list[dict[str, str]], number: int) -> str:
        answer = messages[1]["content"].rpartition("Answer:\n")[2]
        return verdicts[answer]

    return say


def test_a_judge_is_asked_about_answers_and_not_about_abstentions(fake_endpoint: Any) -> None:
    fake_endpoint.say = by_answer({"Ten.": '{"verdict": "partly"}'})
    source = Said(Reply("Ten. [1]", (), ("a.md",)), Reply(ABSTENTIONS["ko"]), Reply("Bob."))
    options = ChatOptions(fake_endpoint.url, "fake", temperature=0.7)
    result = evaluate_answers(LAMP, source, judge_options=options, judge_repeats=3)
    assert len(fake_endpoint.requests) == 3
    assert fake_endpoint.requests[0]["temperature"] == 0.7
    assert result.judgement is not None
    assert result.judgement.mean == 0.25  # one of two answerable questions is half right
    assert result.judgement.low == 0.0
    assert result.judgement.high == 0.5
    assert [s.scores.get("judge") for s in result.scored] == [0.5, 0.0, None]
    raw = result.to_json()
    assert raw["judge"] == {
        "mean": 0.25, "low": 0.0, "high": 0.5, "agreement": 1.0, "malformed": 0, "failed": 0,
    }  # fmt: skip


def test_verdicts_that_cannot_be_read_are_counted(fake_endpoint: Any) -> None:
    replies = ['{"verdict": "correct"}', "I think so", '```json\n{"verdict": "Wrong"}\n```', "500"]
    fake_endpoint.say = lambda messages, number: replies[number]
    options = ChatOptions(fake_endpoint.url, "fake", concurrency=1)
    given = judge([Judged("질문", ["답"], "답")], options, repeats=4, advance=NONE)
    assert given.verdicts == [[1.0, 0.0]]
    assert (given.malformed, given.failed, given.agreement) == (1, 1, 0.0)
    fake_endpoint.say = lambda messages, number: "no JSON"
    with pytest.raises(EvaluationError, match=r"no verdict in 4 replies \(4 malformed\)"):
        judge([Judged("q", ["a"], "b")], options, repeats=4, advance=NONE)


def test_the_interval_has_both_kinds_of_variance() -> None:
    same = two_stage_interval([[1.0, 1.0], [1.0, 1.0]])
    assert same == (1.0, 1.0, 1.0)
    mean, low, high = two_stage_interval([[1.0, 0.0]])  # one question: the verdicts alone vary
    assert (mean, low, high) == (0.5, 0.0, 1.0)
    assert two_stage_interval([[1.0], [], [0.0]])[0] == 0.5


def test_json_is_read_strictly() -> None:
    assert parse_object('{"a": 1}') == {"a": 1}
    assert parse_object('```json\n{"a": 1}\n```') == {"a": 1}
    assert parse_object('Here: {"a": 1}') is None
    assert parse_object("[1]") is None


def test_judgements_beside_the_questions_are_found(tmp_path: Path) -> None:
    questions = tmp_path / "queries.jsonl"
    questions.write_text('{"_id": "1", "text": "?", "metadata": {"answer": "x"}}\n')
    assert question_set(questions, None).qrels == {}
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("1\td\t2\n")
    assert question_set(questions, None).qrels == {"1": {"d": 2}}
    with pytest.raises(ConfigurationError, match="--qrels goes with --questions"):
        question_set(None, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of --bundle and --url"),
        (["--bundle", "x", "--judge-url", "http://x"], "--judge-url and --judge-model"),
        (["--url", "x", "--generator-url", "http://x", "--generator-model", "m"], "--bundle"),
        (["--bundle", "x", "--header", "A: b"], "--header goes with --url"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["rag-eval", "answers", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
