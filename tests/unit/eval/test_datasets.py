"""Collections are read exactly, and a malformed line is named by file and number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.datasets import load_beir, load_sample, read_qrels
from rag.errors import EvaluationError

CORPUS = [
    {"_id": "d1", "title": "Wings", "text": "lift and drag", "metadata": {"year": 1958}},
    {"_id": "d2", "title": "", "text": "열역학 제2법칙"},
    {"_id": "d3", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "lift"},
    {"_id": "q2", "text": "엔트로피"},
    {"_id": "q3", "text": " "},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq3\td1\t1\nq9\td1\t1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    (root / "qrels").mkdir(parents=True)
    write_lines(root / "corpus.jsonl", CORPUS)
    write_lines(root / "queries.jsonl", QUERIES)
    (root / "qrels" / "test.tsv").write_text(QRELS)
    return root


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), "utf-8")


def test_a_folder_is_read_as_it_is(folder: Path) -> None:
    dataset = load_beir(folder)
    assert (dataset.name, dataset.split) == ("tiny", "test")
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "q3": {"d1": 1}, "q9": {"d1": 1}}
    lines = list(dataset.corpus())
    assert [line.doc_id for line in lines] == ["d1", "d2", "d3"]
    assert [line.passage for line in lines] == ["Wings\nlift and drag", "열역학 제2법칙", ""]
    assert lines[0].metadata == {"year": 1958}


def test_only_judged_queries_with_a_text_are_asked(folder: Path) -> None:
    dataset = load_beir(folder)
    assert dataset.judged() == ["q1"]
    assert dataset.unsearched() == ["q3", "q9"]


def test_a_split_is_chosen_and_a_missing_one_named(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("q2\td2\t1\r\n")
    assert load_beir(folder, split="dev").qrels == {"q2": {"d2": 1}}
    with pytest.raises(EvaluationError, match=r"train\.tsv is not there; .* are: dev, test$"):
        load_beir(folder, split="train")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"text": "x"}', "'_id' is None"),
        ('{"_id": "", "text": "x"}', "'_id' is ''"),
        ('{"_id": true, "text": "x"}', "'_id' is True"),
        ('{"_id": "d4"}', "'text' is None"),
        ('{"_id": "d4", "text": 3}', "'text' is 3"),
        ('{"_id": "d4", "text": "x", "title": 3}', "'title' is 3"),
        ('{"_id": "d4", "text": "x", "metadata": []}', "'metadata' is"),
        ('{"_id": "d4", "text": "\\ud83d"}', "not valid Unicode"),
        ('{"_id": "d1", "text": "x"}', "document 'd1' is there twice"),
    ],
)
def test_a_malformed_document_is_named_by_line(folder: Path, line: str, problem: str) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(EvaluationError) as caught:
        list(load_beir(folder).corpus())
    message = str(caught.value)
    assert message.startswith(f"{folder / 'corpus.jsonl'}:5: ")
    assert problem in message
    assert "\n" not in message


def test_malformed_queries_are_refused(folder: Path) -> None:
    path = folder / "queries.jsonl"
    path.write_text('{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n')
    with pytest.raises(EvaluationError, match=r"queries\.jsonl:2: query 'q1' is there twice"):
        load_beir(folder)
    path.write_text("\n")
    with pytest.raises(EvaluationError, match="holds no query"):
        load_beir(folder)
    path.write_bytes(b'{"_id": "q1", "text": "\xff"}\n')
    with pytest.raises(EvaluationError, match="is not UTF-8"):
        load_beir(folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("q1\td1\t1\nq1 d2 1\n", ":2: 'q1 d2 1' is not"),
        ("q1\td1\t1\nq1\td2\t0.5\n", ":2: .* is not"),
        ("q1\td1\t1\nq1\t\t1\n", ":2: .* is not"),
        ("q1\td1\t1\nq1\td1\t2\n", ":2: 'd1' was judged 1 for query 'q1' before, now 2"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgement"),
    ],
)
def test_malformed_judgements_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=problem):
        read_qrels(path)


def test_a_judgement_may_be_repeated_and_negative(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("\ufeffq1\td 1\t-1\nq1\td 1\t-1\n\n", encoding="utf-8")
    assert read_qrels(path) == {"q1": {"d 1": -1}}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is not a folder"):
        load_beir(tmp_path / "none")
    with pytest.raises(EvaluationError, match=r"corpus\.jsonl is not there"):
        load_beir(tmp_path)
    with pytest.raises(EvaluationError, match="sample has no"):
        next(load_sample().corpus())


def test_the_sample_has_questions_without_judgements() -> None:
    sample = load_sample()
    assert set(sample.judged()) < set(sample.queries)
    assert not sample.unsearched()
