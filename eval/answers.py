"""Answer quality on questions with gold answers: asked, scored, averaged with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.answer_scores import (
    citation_scores,
    contains_gold,
    exact_match,
    token_f1,
    unsupported_share,
)
from eval.answerers import AnswerSource, Reply
from eval.chat import ChatOptions
from eval.datasets import Dataset
from eval.judge import Judged, Judgement, judge
from eval.statistics import bootstrap_interval
from eval.vectors import Advance
from rag.answering.citations import without_markers
from rag.errors import EvaluationError
from rag.models.abstention import is_abstention, question_language

MEASURES = (
    "exact match", "F1", "contains gold", "citation precision", "citation recall",
    "unsupported sentences", "abstention precision", "abstention recall", "wrong abstentions",
)  # fmt: skip
ALL = "all"
JUDGE = "judge"
_RESAMPLES = 2_000
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its gold answers; none if it cannot be answered. `judged` are the grades of
    documents, `lang` decides how words are compared.
    """

    query_id: str
    text: str
    lang: str
    golds: tuple[str, ...]
    judged: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Scored:
    """A question, its reply, and its scores; None where a measure does not apply to it."""

    question: Question
    reply: Reply
    abstained: bool
    scores: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the `n` questions that a measure applies to, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """`results` maps language (and 'all') to measure to estimate; a measure that applies to no
    question is missing. `judgement` is the judge's, if there was one.
    """

    dataset: str
    system: dict[str, Any]
    questions: dict[str, int]
    results: dict[str, dict[str, Estimate]]
    scored: list[Scored]
    notes: list[str] = field(default_factory=list)
    judgement: Judgement | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as plain data, scores to six decimals."""
        raw = {
            "dataset": self.dataset,
            "system": self.system,
            "questions": self.questions,
            "results": {
                group: {name: _plain(asdict(found)) for name, found in by_name.items()}
                for group, by_name in self.results.items()
            },
            "notes": self.notes,
            "per_question": [_line(scored) for scored in self.scored],
        }
        if self.judgement is not None:
            given = asdict(self.judgement)
            del given["verdicts"]
            raw["judge"] = _plain(given)
        return raw


def load_questions(dataset: Dataset) -> tuple[list[Question], list[str]]:
    """The questions that say what their answer is, and notes on those that do not.

    A line's `metadata.answer` is a gold answer, a list of them (any of them is right), or null for
    a question that the documents do not answer. `metadata.lang` is the language; without it, that
    of the question decides between English and Korean. Raises EvaluationError if there is none.
    """
    questions, left_out = [], 0
    for query_id, text in dataset.queries.items():
        metadata = dataset.metadata.get(query_id, {})
        if "answer" not in metadata or not text.strip():
            left_out += 1
            continue
        golds = _golds(metadata["answer"], dataset.name, query_id)
        lang = str(metadata.get("lang") or question_language(text))
        judged = dataset.qrels.get(query_id, {})
        questions.append(Question(query_id, text, lang, golds, judged))
    if not questions:
        raise EvaluationError(
            f"no question of {dataset.name} has a metadata.answer; give each a gold answer, or"
            " null where the documents hold none"
        )
    notes = [f"{left_out} questions say nothing of their answer and were not asked"]
    return questions, notes if left_out else []


def evaluate_answers(
    dataset: Dataset,
    source: AnswerSource,
    *,
    judge_options: ChatOptions | None = None,
    judge_repeats: int = 3,
    advance: Advance = lambda stage, done, total: None,
) -> AnswerResult:
    """Asks `source` every question with a gold answer, and scores what it says.

    Exact match, F1, 'contains gold' and citation recall are over answerable questions, where an
    abstention or a failure scores 0; citation precision and unsupported sentences over the
    answers given to them. Abstention precision is over abstentions, its recall over unanswerable
    questions, 'wrong abstentions' over answerable ones. Raises EvaluationError if questions fail
    and none of the others is answered, and what the source raises.
    """
    questions, notes = load_questions(dataset)
    replies = source.answer([question.text for question in questions], advance)
    scored = [score(question, reply) for question, reply in zip(questions, replies, strict=True)]
    failed = [line for line in scored if line.reply.text is None]
    if failed and all(line.abstained or line.reply.text is None for line in scored):
        raise EvaluationError(
            f"no question could be answered; the first: {failed[0].reply.problem}"
        )
    if failed:
        notes.append(
            f"{len(failed)} questions failed and count as wrong, such as"
            f" '{failed[0].question.query_id}': {failed[0].reply.problem}"
        )
    judgement = None
    if judge_options is not None:
        judgement = _judge(scored, judge_options, judge_repeats, advance)
    langs = sorted({question.lang for question in questions})
    groups = {ALL: scored}
    if len(langs) > 1:
        groups |= {lang: [s for s in scored if s.question.lang == lang] for lang in langs}
    return AnswerResult(
        dataset=dataset.name,
        system=dict(source.system),
        questions={
            "answerable": sum(bool(q.golds) for q in questions),
            "unanswerable": sum(not q.golds for q in questions),
            "failed": len(failed),
        },
        results={group: _estimates(lines) for group, lines in groups.items()},
        scored=scored,
        notes=notes,
        judgement=judgement,
    )


def score(question: Question, reply: Reply) -> Scored:
    """One reply against one question's gold; see `evaluate_answers` for what applies where."""
    scores: dict[str, float | None] = dict.fromkeys(MEASURES)
    text = "" if reply.text is None else without_markers(reply.text)
    abstained = reply.text is not None and is_abstention(text)
    answered = reply.text is not None and not abstained
    if abstained:
        scores["abstention precision"] = float(not question.golds)
    if not question.golds:
        scores["abstention recall"] = float(abstained)
        return Scored(question, reply, abstained, scores)
    scores["wrong abstentions"] = float(abstained)
    for name, compare in (
        ("exact match", exact_match), ("F1", token_f1), ("contains gold", contains_gold),
    ):  # fmt: skip
        scores[name] = compare(text, question.golds, question.lang) if answered else 0.0
    precision, recall = citation_scores(reply.cited if answered else [], question.judged)
    scores["citation recall"] = recall
    if answered:
        scores["citation precision"] = precision if question.judged else None
        scores["unsupported sentences"] = unsupported_share(reply.text or "", reply.citations)
    return Scored(question, reply, abstained, scores)


def write_answers(path: Path, result: AnswerResult) -> None:
    """Writes the result as JSON; folders above the file are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _judge(
    scored: Sequence[Scored], options: ChatOptions, repeats: int, advance: Advance
) -> Judgement:
    """Judges what was answered; answerable questions without an answer are wrong unasked."""
    answerable = [line for line in scored if line.question.golds]
    asked = [line for line in answerable if line.reply.text is not None and not line.abstained]
    given = judge(
        [
            Judged(s.question.text, s.question.golds, without_markers(s.reply.text or ""))
            for s in asked
        ],
        options,
        repeats=repeats,
        advance=advance,
        unasked=len(answerable) - len(asked),
    )
    for line, verdicts in zip(asked, given.verdicts, strict=True):
        line.scores[JUDGE] = float(np.mean(verdicts)) if verdicts else None
    for line in answerable:
        line.scores.setdefault(JUDGE, 0.0)
    return given


def _estimates(scored: Sequence[Scored]) -> dict[str, Estimate]:
    found = {}
    for name in MEASURES:
        values = [v for line in scored if (v := line.scores[name]) is not None]
        if values:
            array = np.array(values, dtype=np.float64)
            low, high = bootstrap_interval(array, resamples=_RESAMPLES)
            found[name] = Estimate(float(array.mean()), low, high, len(values))
    return found


def _golds(answer: Any, name: str, query_id: str) -> tuple[str, ...]:
    golds = [] if answer is None else answer if isinstance(answer, list) else [answer]
    if not all(isinstance(gold, str) and gold.strip() for gold in golds):
        raise EvaluationError(
            f"metadata.answer of '{query_id}' in {name} is {answer!r:.60}; use a string, a list of"
            " strings, or null"
        )
    return tuple(golds)


def _line(scored: Scored) -> dict[str, Any]:
    question, reply = scored.question, scored.reply
    return {
        "query_id": question.query_id,
        "lang": question.lang,
        "question": question.text,
        "gold": list(question.golds),
        "answer": reply.text,
        "cited": reply.cited,
        "abstained": scored.abstained,
        "problem": reply.problem,
        "scores": _plain(scored.scores),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, _DIGITS) if isinstance(v, float) else v for k, v in values.items()}
