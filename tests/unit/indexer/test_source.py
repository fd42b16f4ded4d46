from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from indexer.pipeline.records import RawDocument
from indexer.sidecar import sidecar_metadata
from indexer.source import CorpusColumns, Source
from indexer.source.corpus import Row
from rag.errors import ConfigurationError, UnreadableDocument
from rag.storage import join, open_store


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def keys(source: Source) -> list[str]:
    return [item.key for item in source.items()]


def test_documents_are_found_in_order_and_hidden_files_are_not(tmp_path: Path) -> None:
    fill(tmp_path, **{"b.md": "b", "a/한글.md": "a", ".git/x": "", "a/.DS_Store": ""})
    source = Source(str(tmp_path))
    items = list(source.items())
    assert [item.key for item in items] == ["a/한글.md", "b.md"]
    assert source.read(items[0]).uri == "a/한글.md"
    assert source.passed_over == {"hidden": 2}


def test_names_are_in_nfc_and_still_readable(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "회의록.txt")
    fill(tmp_path, **{decomposed: "내용"})
    source = Source(str(tmp_path))
    (item,) = source.items()
    raw = source.read(item)
    assert raw.doc_id == unicodedata.normalize("NFC", decomposed)
    assert raw.data.decode() == "내용"


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path, **{"a/1.md": "", "a/2.txt": "", "b/3.md": ""})
    source = Source(str(tmp_path), include=["*.md"], exclude=["b/*"])
    assert keys(source) == ["a/1.md"]
    assert source.passed_over == {"not included": 1, "excluded": 1}


def test_sidecars_give_metadata_and_are_not_documents(tmp_path: Path) -> None:
    sidecar = json.dumps({"metadataAttributes": {"year": 2024, "tags": ["a"], "owner": {"t": 1}}})
    # What lies between a document and its sidecar in the order of keys must not part them.
    names = {"x.md": "text", "x.md.bak": "old", "x.md.metadata.json": sidecar, "x.md2": "2"}
    fill(tmp_path, **names, **{"lone.metadata.json": "{}"})
    source = Source(str(tmp_path))
    items = {item.key: item for item in source.items()}
    assert list(items) == ["lone.metadata.json", "x.md", "x.md.bak", "x.md2"]
    raw = source.read(items["x.md"])
    assert sidecar_metadata(raw.sidecar or b"", "x.md") == {
        "year": 2024, "tags": ["a"], "owner.t": 1,
    }  # fmt: skip
    assert source.read(items["x.md2"]).sidecar is None
    assert source.passed_over == {"sidecar": 1}


def test_typed_sidecars() -> None:
    typed = {
        "team": {"value": {"type": "STRING", "stringValue": "search"}, "includeForEmbedding": True},
        "year": {"value": {"type": "NUMBER", "numberValue": 9.5}},
        "open": {"value": {"type": "BOOLEAN", "booleanValue": False}},
        "acl": {"value": {"type": "STRING_LIST", "stringListValue": ["a", "b"]}},
    }
    found = sidecar_metadata(json.dumps({"metadataAttributes": typed}).encode(), "x")
    assert found == {"team": "search", "year": 9.5, "open": False, "acl": ["a", "b"]}
    wrong = {"metadataAttributes": {"x": {"value": {"type": "STRING", "numberValue": 1}}}}
    with pytest.raises(UnreadableDocument, match=r"x\.md\.metadata\.json.*STRING"):
        sidecar_metadata(json.dumps(wrong).encode(), "x.md")


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no documents"):
        list(Source(str(tmp_path / "nothing")).items())


def test_a_bucket_gives_its_own_uris(s3_prefix: str) -> None:
    store = open_store(s3_prefix)
    store.write("guide/a.md", b"# A", expected=None)
    source = Source(s3_prefix)
    (item,) = source.items()
    raw = source.read(item)
    assert (raw.uri, raw.data) == (join(s3_prefix, "guide/a.md"), b"# A")
    other = Source(s3_prefix, base_uri="https://docs.example.com")
    assert other.read(item).uri == "https://docs.example.com/guide/a.md"


def test_many_keys_come_page_by_page_and_large_objects_in_parts(s3_prefix: str) -> None:
    store = open_store(s3_prefix)
    names = [f"{n:04}.txt" for n in range(1100)]
    for name in names:
        store.write(name, b"x", expected=None)
    large = bytes(range(256)) * (10 * 4096) + b"end"
    store.write("large.bin", large, expected=None)
    source = Source(s3_prefix)
    items = list(source.items())
    assert [item.key for item in items] == [*names, "large.bin"]
    assert source.read(items[-1]).data == large


@pytest.mark.parametrize("form", ["manifest", "augmented", "keys"])
def test_a_list_names_the_objects(form: str, s3_prefix: str) -> None:
    store = open_store(s3_prefix)
    for name in ("a.md", "a.md.metadata.json", "b/c.md", "d.md"):
        store.write(name, b"{}", expected=None)
    wanted = ["b/c.md", "a.md"]
    lists = {
        "manifest": json.dumps([{"prefix": s3_prefix + "/"}, *wanted]),
        "augmented": "\n".join(json.dumps({"source-ref": join(s3_prefix, k)}) for k in wanted),
        "keys": "# two\nb/c.md\n\na.md\n",
    }
    open_store(s3_prefix + "-lists").write("list", lists[form].encode(), expected=None)
    source = Source(s3_prefix, object_list=f"{s3_prefix}-lists/list")
    items = list(source.items())
    assert [(item.key, item.sidecar is not None) for item in items] == [
        ("a.md", True), ("b/c.md", False),
    ]  # fmt: skip


def test_a_list_of_other_places_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, **{"docs/a.md": "a", "list": "s3://elsewhere/a.md\n"})
    source = Source(str(tmp_path / "docs"), object_list=str(tmp_path / "list"))
    with pytest.raises(ConfigurationError, match=r"s3://elsewhere/a\.md, which is not below"):
        list(source.items())


ROWS = [
    {
        "_id": "p1",
        "text": "One.",
        "title": "First",
        "tenant": "a",
        "acl": ["x", "y"],
        "n": {"m": 1},
    },
    {"_id": "p2", "text": "둘.", "title": None, "tenant": "b", "acl": [], "n": {"m": 2}},
]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_rows_of_a_corpus_are_documents(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"corpus.{ending}"
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    match ending:
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case _:
            parquet.write_table(pa.Table.from_pylist(ROWS), path)
    columns = CorpusColumns("text", "_id", "title", ("tenant", "acl", "n"))
    source = Source(str(tmp_path), columns=columns)
    (item,) = source.items()
    assert source.is_corpus(item)
    first, second = source.rows(item)
    assert isinstance(first, RawDocument)
    assert (first.doc_id, first.title, first.data) == ("p1", "First", b"One.")
    assert first.metadata == {"tenant": "a", "acl": ["x", "y"], "n.m": 1}
    assert isinstance(second, RawDocument)
    assert (second.data.decode(), second.title) == ("둘.", "")
    everything = Source(str(tmp_path), columns=CorpusColumns("text", "_id", metadata=("*",)))
    (row, _) = everything.rows(item)
    assert isinstance(row, RawDocument)
    assert set(row.metadata or {}) == {"title", "tenant", "acl", "n.m"}


def test_rows_that_say_nothing_are_told(tmp_path: Path) -> None:
    fill(tmp_path, **{"c.jsonl": 'x\n{"id": 7}\n{"text": "t"}\n{"id": 8, "text": "t"}\n'})
    source = Source(str(tmp_path), columns=CorpusColumns("text", "id"))
    (item,) = source.items()
    rows = list(source.rows(item))
    problems = [row.problem for row in rows if isinstance(row, Row)]
    assert problems == ["row 1 is no JSON object", "row 2 has no text in 'text'",
                        "row 3 has no id in 'id'"]  # fmt: skip
    assert [row.doc_id for row in rows if isinstance(row, RawDocument)] == ["8"]
    parquet.write_table(pa.Table.from_pylist([{"body": "t"}]), tmp_path / "d.parquet")
    *_, other = source.items()
    with pytest.raises(UnreadableDocument, match=r"no column 'text' \(there are: body\)"):
        list(source.rows(other))
