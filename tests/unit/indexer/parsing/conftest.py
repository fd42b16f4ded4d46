"""`parsed(data, name)`: one file through the public entry, with the document contract checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.parsing import parse
from rag.types import BlockKind, Document

_CONTRACT = Path(__file__).parents[3] / "contract" / "document_contract.py"


@pytest.fixture(scope="session")
def check_document() -> Callable[[Document], None]:
    spec = importlib.util.spec_from_file_location("document_contract", _CONTRACT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checker: Callable[[Document], None] = module.check_document
    return checker


@pytest.fixture(scope="session")
def parsed(check_document: Callable[[Document], None]) -> Callable[[bytes | str, str], Document]:
    def run(data: bytes | str, name: str) -> Document:
        raw = data.encode() if isinstance(data, str) else data
        document = parse(raw, doc_id=name, uri=f"file:///{name}")
        check_document(document)
        assert parse(raw, doc_id=name, uri=f"file:///{name}") == document
        return document

    return run


@pytest.fixture(scope="session")
def blocks() -> Callable[[Document], list[tuple[str, str]]]:
    """(kind, text) of each block; a heading's kind carries its level: 'heading2'."""

    def run(document: Document) -> list[tuple[str, str]]:
        return [
            (
                f"{b.kind.value}{b.level}" if b.kind is BlockKind.HEADING else b.kind.value,
                document.text[b.start : b.end],
            )
            for b in document.blocks
        ]

    return run
