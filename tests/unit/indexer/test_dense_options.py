from __future__ import annotations

from pathlib import Path

import pytest

from indexer.dense_options import dense_options, parse_bytes, read_queries
from rag.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "size"),
    [("17", 17), ("500MB", 500_000_000), ("4 GiB", 4 << 30), ("1.5kib", 1536), ("2TB", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4 gigs", "-1GB", "GiB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no size"):
        parse_bytes(text)


def test_only_what_was_given_is_passed_on() -> None:
    assert dense_options("auto") == {"kind": "auto"}
    assert dense_options("hnsw", storage="int8", recall_target=0.9, memory_budget="1kB") == {
        "kind": "hnsw",
        "storage": "int8",
        "recall_target": 0.9,
        "memory_budget": 1000,
    }


def test_queries_from_lines_and_from_json(tmp_path: Path) -> None:
    plain, lines = tmp_path / "queries.txt", tmp_path / "queries.jsonl"
    plain.write_text("휴가는 며칠?\n\n how many days? \n", encoding="utf-8")
    lines.write_text('{"query": "one", "id": 3}\n\n{"text": "two"}\n', encoding="utf-8")
    assert read_queries(plain) == ["휴가는 며칠?", "how many days?"]
    assert read_queries(lines) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", b" \n", "holds no queries"),
        ("q.txt", b"\xff\xfe", "cannot be read"),
        ("q.jsonl", b'{"query": "a"}\n{', r"q\.jsonl:2 is not JSON"),
        ("q.jsonl", b'{"question": "a"}', r"q\.jsonl:1 has no text in 'query' or 'text'"),
        ("q.jsonl", b"[1]", "has no text"),
    ],
)
def test_files_without_queries(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_queries(tmp_path / name)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_queries(tmp_path / "nowhere")
