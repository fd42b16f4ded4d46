from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from indexer.source import Source
from rag.errors import ConfigurationError, UnreadableDocument
from rag.storage import join, open_store


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_documents_are_found_in_order_and_hidden_files_are_not(tmp_path: Path) -> None:
    fill(tmp_path, **{"b.md": "b", "a/한글.md": "a", ".git/x": "", "a/.DS_Store": ""})
    source = Source(str(tmp_path))
    items = source.items()
    assert [item.doc_id for item in items] == ["a/한글.md", "b.md"]
    assert items[0].uri == "a/한글.md"
    assert source.passed_over == {"hidden": 2}


def test_names_are_in_nfc_and_still_readable(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "회의록.txt")
    fill(tmp_path, **{decomposed: "내용"})
    source = Source(str(tmp_path))
    (item,) = source.items()
    assert item.doc_id == unicodedata.normalize("NFC", decomposed)
    assert source.read(item)[0].decode() == "내용"


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path, **{"a/1.md": "", "a/2.txt": "", "b/3.md": ""})
    source = Source(str(tmp_path), include=["*.md"], exclude=["b/*"])
    assert [item.doc_id for item in source.items()] == ["a/1.md"]
    assert source.passed_over == {"not included": 1, "excluded": 1}


def test_sidecars_give_metadata_and_are_not_documents(tmp_path: Path) -> None:
    attributes = {
        "year": 2024,
        "tags": ["a", "b"],
        "owner": {"team": "search"},
        "price": {"value": {"type": "NUMBER", "numberValue": 9.5}, "includeForEmbedding": False},
    }
    sidecar = json.dumps({"metadataAttributes": attributes})
    fill(tmp_path, **{"x.md": "text", "x.md.metadata.json": sidecar, "lone.metadata.json": "{}"})
    source = Source(str(tmp_path))
    lone, item = source.items()
    assert lone.doc_id == "lone.metadata.json"
    assert source.read(item)[1] == {
        "year": 2024,
        "tags": ["a", "b"],
        "owner.team": "search",
        "price": 9.5,
    }


def test_a_bad_sidecar_is_named(tmp_path: Path) -> None:
    fill(tmp_path, **{"x.md": "text", "x.md.metadata.json": "{}"})
    source = Source(str(tmp_path))
    with pytest.raises(UnreadableDocument, match=r"x\.md\.metadata\.json"):
        source.read(source.items()[0])


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no documents"):
        Source(str(tmp_path / "nothing")).items()


def test_a_bucket_gives_its_own_uris(s3_prefix: str) -> None:
    store = open_store(s3_prefix)
    store.write("guide/a.md", b"# A", expected=None)
    source = Source(s3_prefix)
    (item,) = source.items()
    assert item.uri == join(s3_prefix, "guide/a.md")
    assert source.read(item)[0] == b"# A"
    (other,) = Source(s3_prefix, base_uri="https://docs.example.com").items()
    assert other.uri == "https://docs.example.com/guide/a.md"
