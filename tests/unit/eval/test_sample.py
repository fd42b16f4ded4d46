"""The built-in collection is what its README says: complete, consistent, small."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import eval as eval_package
from indexer.parsing import parse

SAMPLE = Path(eval_package.__file__).parent / "sample"
DOCUMENTS = SAMPLE / "documents"
FORMATS = {
    "md": 15, "html": 9, "pdf": 4, "docx": 4, "pptx": 2, "xlsx": 2, "csv": 2, "txt": 2, "json": 2,
}  # fmt: skip
PLAIN = {"md", "txt", "csv", "json"}
MAX_BYTES = 3_000_000


def _path(doc_id: str) -> Path:
    return DOCUMENTS.joinpath(*doc_id.split("/"))


DOC_IDS = sorted(p.relative_to(DOCUMENTS).as_posix() for p in DOCUMENTS.rglob("*") if p.is_file())
QUERIES: list[dict[str, Any]] = [
    json.loads(line) for line in (SAMPLE / "queries.jsonl").read_text("utf-8").splitlines()
]
HEADER, *QREL_LINES = (SAMPLE / "qrels" / "test.tsv").read_text("utf-8").splitlines()
QRELS = [line.split("\t") for line in QREL_LINES]
ANSWERABLE = [q for q in QUERIES if q["metadata"]["type"] != "unanswerable"]
UNANSWERABLE = [q for q in QUERIES if q["metadata"]["type"] == "unanswerable"]


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _format(doc_id: str) -> str:
    return PurePosixPath(doc_id).suffix.removeprefix(".")


def _answering(query_id: str) -> list[str]:
    return [doc_id for query, doc_id, grade in QRELS if query == query_id and grade == "2"]


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text).casefold()


def _plain_text(doc_id: str) -> str:
    raw = _path(doc_id).read_text("utf-8")
    if _format(doc_id) != "html":
        return _folded(raw)
    reader = _Text()
    reader.feed(raw)
    return _folded("".join(reader.parts))


@pytest.fixture(scope="module")
def parsed() -> dict[str, str]:
    return {
        doc_id: _folded(parse(_path(doc_id).read_bytes(), doc_id=doc_id, uri=doc_id).text)
        for doc_id in DOC_IDS
    }


def test_every_format_is_there_as_often_as_stated() -> None:
    assert Counter(map(_format, DOC_IDS)) == FORMATS


def test_a_third_of_the_documents_is_korean(parsed: dict[str, str]) -> None:
    def hangul_share(text: str) -> float:
        letters = [c for c in text if c.isalpha()]
        return sum("가" <= c <= "힣" for c in letters) / len(letters)

    korean = {doc_id for doc_id, text in parsed.items() if hangul_share(text) > 0.3}
    assert korean == {doc_id for doc_id in DOC_IDS if doc_id.startswith("ko/")}
    assert 3 * len(korean) >= len(DOC_IDS)
    assert {"pdf", "docx"} <= {_format(doc_id) for doc_id in korean}


def test_names_and_texts_are_nfc() -> None:
    plain = [_path(d).read_text("utf-8") for d in DOC_IDS if _format(d) in PLAIN | {"html"}]
    lines = [json.dumps(QUERIES, ensure_ascii=False), *QREL_LINES]
    for text in [*DOC_IDS, *plain, *lines]:
        assert unicodedata.is_normalized("NFC", text)


def test_the_collection_stays_small() -> None:
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) < MAX_BYTES


def test_questions_are_numbered_and_described() -> None:
    assert [q["_id"] for q in QUERIES] == [f"q{i:02d}" for i in range(1, 61)]
    assert len({q["text"] for q in QUERIES}) == 60
    assert Counter(q["metadata"]["lang"] for q in QUERIES) == {"en": 40, "ko": 20}
    assert Counter(q["metadata"]["type"] for q in QUERIES) == {
        "fact": 22, "howto": 13, "table": 12, "compare": 4, "crosslingual": 3, "unanswerable": 6,
    }  # fmt: skip


def test_judgements_name_questions_and_documents_that_exist() -> None:
    assert HEADER == "query-id\tcorpus-id\tscore"
    assert {len(line) for line in QRELS} == {3}
    assert {query for query, _, _ in QRELS} <= {q["_id"] for q in QUERIES}
    assert {doc_id for _, doc_id, _ in QRELS} <= set(DOC_IDS)
    assert {grade for _, _, grade in QRELS} == {"1", "2"}
    assert len({(query, doc_id) for query, doc_id, _ in QRELS}) == len(QRELS)


def test_every_document_answers_a_question() -> None:
    assert {doc_id for _, doc_id, grade in QRELS if grade == "2"} == set(DOC_IDS)


def test_answerable_questions_have_an_answer_and_a_document() -> None:
    for query in ANSWERABLE:
        assert query["metadata"]["answer"], query["_id"]
        assert _answering(query["_id"]), query["_id"]


def test_unanswerable_questions_have_neither_answer_nor_judgement() -> None:
    judged = {query for query, _, _ in QRELS}
    for query in UNANSWERABLE:
        assert query["metadata"]["answer"] is None
        assert "key" not in query["metadata"]
        assert query["_id"] not in judged


def test_crosslingual_questions_are_korean_with_english_answers_alone() -> None:
    for query in QUERIES:
        if query["metadata"]["type"] == "crosslingual":
            assert query["metadata"]["lang"] == "ko"
            assert not any(doc_id.startswith("ko/") for doc_id in _answering(query["_id"]))


@pytest.mark.parametrize("query", ANSWERABLE, ids=lambda q: q["_id"])
def test_the_key_of_the_answer_stands_in_a_document_that_answers(
    query: dict[str, Any], parsed: dict[str, str]
) -> None:
    key = _folded(query["metadata"]["key"])
    answering = _answering(query["_id"])
    assert any(key in parsed[doc_id] for doc_id in answering)
    plain = [d for d in answering if _format(d) in PLAIN | {"html"}]
    if plain and len(plain) == len(answering):
        assert any(key in _plain_text(doc_id) for doc_id in plain)


def test_the_readme_counts_what_is_there() -> None:
    readme = (SAMPLE / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| .*?(\d+) \|$", readme, re.MULTILINE)
    grades = Counter(grade for _, _, grade in QRELS)
    assert {name: int(count) for name, count in rows if name in "12"} == {
        "1": grades["1"],
        "2": grades["2"],
    }
    korean = sum(doc_id.startswith("ko/") for doc_id in DOC_IDS)
    assert f"| **all** | **{len(DOC_IDS)}** | **{korean}** |" in readme
