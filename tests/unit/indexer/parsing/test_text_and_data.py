from __future__ import annotations

import json

import pytest

from indexer.parsing import parse
from rag.errors import UnreadableDocument


def test_text_paragraphs_and_underlined_headings(parsed, blocks) -> None:
    document = parsed("제목 줄\r\n=======\r\n본문 하나\r\n둘째 줄\r\n \r\n\r\n끝", "노트.txt")
    assert blocks(document) == [
        ("heading1", "제목 줄"),
        ("paragraph", "본문 하나\n둘째 줄"),
        ("paragraph", "끝"),
    ]
    assert parsed("그냥 글".encode("cp949"), "노트.TXT").title == "노트"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters(parsed, delimiter: str) -> None:
    rows = [["이름", "설명", "값"], ["가", '"a, b; c"', "1"], ["나", "x", "2"]]
    document = parsed("\n".join(delimiter.join(row) for row in rows), "a.csv")
    table = document.blocks[0]
    assert document.text.split("\n") == [
        "| 이름 | 설명 | 값 |",
        "|---|---|---|",
        "| 가 | a, b; c | 1 |",
        "| 나 | x | 2 |",
    ]
    assert document.text[table.start : table.header_end] == "| 이름 | 설명 | 값 |"


def test_csv_quotes_lines_and_encoding(parsed) -> None:
    data = 'name,note\n김,"두 줄\n글 | 표"\n'.encode("cp949")
    assert parsed(data, "a.CSV").text == "| name | note |\n|---|---|\n| 김 | 두 줄 글 \\| 표 |"


def test_csv_of_numbers_has_no_header(parsed) -> None:
    assert parsed("1,2\n3,4\n", "a.csv").blocks[0].header_end is None
    assert parsed("only,one,row\n", "a.csv").blocks[0].header_end is None


def test_tsv(parsed) -> None:
    assert parsed("a\tb, c\n1\t2\n", "a.tsv").text == "| a | b, c |\n|---|---|\n| 1 | 2 |"


def test_json_object(parsed, blocks) -> None:
    value = {
        "title": "오류 목록",
        "owner": {"team": "검색", "on": True, "x": None},
        "tags": ["a", 1],
        "errors": [{"code": 1, "뜻": "가\n나"}, {"code": 2}],
        "deep": [[1, 2], [3]],
    }
    document = parsed(json.dumps(value, ensure_ascii=False), "a.json")
    assert document.title == "오류 목록"
    assert blocks(document) == [
        (
            "paragraph",
            "title: 오류 목록\nowner.team: 검색\nowner.on: true\ntags: a, 1\n"
            "deep.1: 1, 2\ndeep.2: 3",
        ),
        ("heading2", "errors"),
        ("paragraph", "code: 1\n뜻: 가\n나"),
        ("paragraph", "code: 2"),
    ]


def test_json_array_gives_a_block_for_each_record(parsed, blocks) -> None:
    document = parsed('[{"q": "가"}, {"q": "나"}, 3, "글"]', "a.json")
    assert [text for _, text in blocks(document)] == ["q: 가", "q: 나", "3", "글"]


def test_jsonl(parsed, blocks) -> None:
    document = parsed('{"q": "가"}\n\n{"q": {"r": 1}}\n', "a.jsonl")
    assert [text for _, text in blocks(document)] == ["q: 가", "q.r: 1"]
    with pytest.raises(UnreadableDocument, match=r"line 2 is not valid JSON"):
        parse(b'{"a": 1}\n{"a": \n', doc_id="a.jsonl", uri="")


@pytest.mark.parametrize("data", [b"{", b"[1,]", b"[" * 100_000])
def test_broken_json(data: bytes) -> None:
    with pytest.raises(UnreadableDocument, match=r"^a\.json: "):
        parse(data, doc_id="a.json", uri="")


def test_notebook(parsed, blocks) -> None:
    notebook = {
        "metadata": {"title": "실험"},
        "cells": [
            {"cell_type": "markdown", "source": ["# 제목\n", "글"]},
            {
                "cell_type": "code",
                "source": "print(1)",
                "outputs": [
                    {"output_type": "stream", "text": ["1\n"]},
                    {"data": {"text/plain": "<x>", "image/png": "AAAA"}},
                ],
            },
            {"cell_type": "raw", "source": "raw"},
        ],
    }
    document = parsed(json.dumps(notebook), "a.ipynb")
    assert document.title == "실험"
    assert blocks(document) == [
        ("heading1", "제목"),
        ("paragraph", "글"),
        ("code", "print(1)"),
        ("code", "1"),
        ("code", "<x>"),
        ("paragraph", "raw"),
    ]


def test_email(parsed, blocks) -> None:
    message = (
        "From: =?utf-8?b?6rmA?= <kim@example.com>\r\nTo: lee@example.com\r\n"
        "Subject: =?utf-8?b?7ZqM7J2YIOyViOuCtA==?=\r\nDate: Mon, 3 Mar 2025 09:00:00 +0900\r\n"
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>본문</p><p>둘</p>\r\n"
        "--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=x.txt\r\n"
        "\r\nsecret\r\n--b--\r\n"
    )
    document = parsed(message, "a.eml")
    assert blocks(document) == [
        ("heading1", "회의 안내"),
        ("paragraph", "본문"),
        ("paragraph", "둘"),
    ]
    assert document.metadata == {
        "author": "김 <kim@example.com>",
        "to": "lee@example.com",
        "created": "2025-03-03T09:00:00+09:00",
        "attachments": ["x.txt"],
    }
