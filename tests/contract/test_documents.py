"""Every parser over real files: a document that keeps the contract, or a one-line DocumentError."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.parsing import FORMATS, parse
from rag.errors import DocumentError

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_DOCUMENTS = _ROOT.parent / "shared" / "data" / "documents"
_SAMPLE = _ROOT / "eval" / "sample" / "documents"

_spec = importlib.util.spec_from_file_location("document_contract", _HERE / "document_contract.py")
assert _spec is not None
assert _spec.loader is not None
_contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_contract)
check_document = _contract.check_document

ENDINGS = sorted(ending for format_ in FORMATS for ending in format_.endings)


def outcome(data: bytes, doc_id: str) -> str:
    """'ok', or the name of the DocumentError. Anything else that is raised fails the test."""
    try:
        document = parse(data, doc_id=doc_id, uri=f"file:///{doc_id}")
    except DocumentError as error:
        message = str(error)
        assert message.startswith(f"{doc_id}: "), message
        assert "\n" not in message
        assert len(message) < 600 + len(doc_id)
        return type(error).__name__
    check_document(document)
    return "ok"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_real_documents_keep_the_contract() -> None:
    if not _DOCUMENTS.is_dir():
        pytest.skip("the real documents (../shared/data/documents) are not here")
    chosen = files(_DOCUMENTS / "mixed") + files(_DOCUMENTS / "ko-pdf-news")
    markdown = [p for p in files(_DOCUMENTS) if p.suffix == ".md" and p not in set(chosen)]
    chosen += markdown[::10]
    counts: Counter[str] = Counter()
    for path in chosen:
        doc_id = path.relative_to(_DOCUMENTS).as_posix()
        counts[outcome(path.read_bytes(), doc_id)] += 1
    print(dict(counts))
    assert counts["ok"] > 0.7 * len(chosen)
    assert counts["UnsupportedFormat"] > 0, "the legacy formats are there"
    assert counts["UnreadableDocument"] > 0, "encrypted, empty and scanned files are there"


@pytest.mark.parametrize("path", files(_SAMPLE), ids=lambda path: path.name)
def test_sample_documents_all_parse(path: Path) -> None:
    document = parse(path.read_bytes(), doc_id=path.name, uri="file:///x")
    check_document(document)
    assert document.lang in ("ko", "en")


@given(data=st.binary(max_size=400), ending=st.sampled_from([*ENDINGS, "", ".bin"]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_never_raise_anything_else(data: bytes, ending: str) -> None:
    outcome(data, f"any/file{ending}")


@given(text=st.text(max_size=300), ending=st.sampled_from(ENDINGS))
@settings(max_examples=300, deadline=None)
def test_random_text_never_raises_anything_else(text: str, ending: str) -> None:
    outcome(text.encode("utf-8", "surrogatepass"), f"any/file{ending}")


_PARTS = (
    "<p> </p> <table> <tr> <td> <td_rowspan=3> </table> <ul> <li> </ol> <dl> <dt> <dd> <pre> <h2> "
    "</h2> <br> <sup> ``` ::: /// !!! # - 1. | a|b --- > 한글 text {.x} [x](y) <math> <a> <div> "
    "</div> \n \n\n \t \N{ZERO WIDTH SPACE} \u0301 \x0b"
)
_MARKUP = st.lists(st.sampled_from(_PARTS.split(" ")), max_size=40).map(
    lambda parts: " ".join(parts).replace("_", " ")
)


@given(text=_MARKUP, ending=st.sampled_from([".md", ".html", ".txt", ".csv", ".eml"]))
@settings(max_examples=400, deadline=None)
def test_broken_markup_keeps_the_contract(text: str, ending: str) -> None:
    outcome(text.encode(), f"any/file{ending}")


def _representatives() -> list[Path]:
    """The smallest sample file of each format."""
    by_ending: dict[str, Path] = {}
    for path in sorted(files(_SAMPLE), key=lambda p: (p.stat().st_size, p.name)):
        by_ending.setdefault(path.suffix, path)
    return list(by_ending.values())


@pytest.mark.parametrize("path", _representatives(), ids=lambda path: path.suffix)
@given(cut=st.floats(0, 1), at=st.floats(0, 1), byte=st.integers(0, 255))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_never_raise_anything_else(
    path: Path, cut: float, at: float, byte: int
) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] = byte
    outcome(bytes(data), path.name)
    outcome(bytes(data[: int(cut * len(data))]), path.name)
