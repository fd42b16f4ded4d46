from __future__ import annotations

import sys

import pytest

from indexer.parsing import FORMATS, parse, supported_formats
from rag.errors import ConfigurationError, UnreadableDocument, UnsupportedFormat

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


def test_supported_formats_and_endings() -> None:
    assert {
        "md",
        "html",
        "pdf",
        "docx",
        "pptx",
        "xlsx",
        "csv",
        "tsv",
        "txt",
        "json",
        "jsonl",
    } <= set(supported_formats())
    endings = [ending for format_ in FORMATS for ending in format_.endings]
    assert len(endings) == len(set(endings))
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


@pytest.mark.parametrize(
    ("data", "name", "format_"),
    [
        (b"# a", "x.MD", "md"),
        (b"plain words", "README", "txt"),
        (b"<!DOCTYPE html><p>a", "page", "html"),
        (b"<html><p>saved page</html>", "report.pdf", "html"),
        (b"From: a\nTo: b\nSubject: c\n\nbody", "mail", "eml"),
        (b"a", ".github/NOTES", "txt"),
    ],
)
def test_chosen_by_ending_or_content(data: bytes, name: str, format_: str) -> None:
    assert parse(data, doc_id=name, uri="").format == format_


@pytest.mark.parametrize(
    ("data", "name", "ending"),
    [
        (b"text", "a/b.xyz", "'.xyz'"),
        (OLE, "b.doc", "'.doc'"),
        (OLE, "b.xls", "'.xls'"),
        (OLE, "b.docx", "'.doc'"),
        (b"{\\rtf1 x}", "b.rtf", "'.rtf'"),
        (b"\x89PNG\r\n\x1a\n", "b.png", "'.png'"),
        (b"\x7fELF\x00\x01", "tool", "without an ending"),
    ],
)
def test_unsupported_names_the_ending_and_what_is_supported(
    data: bytes, name: str, ending: str
) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        parse(data, doc_id=name, uri="")
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert ending in message
    assert "pdf" in message.rpartition("supported:")[2]
    assert "\n" not in message


def test_legacy_office_says_what_to_convert_to() -> None:
    with pytest.raises(UnsupportedFormat, match="convert it to pptx"):
        parse(OLE, doc_id="old.ppt", uri="")


def test_encrypted_office_file_says_so() -> None:
    data = OLE + "EncryptedPackage".encode("utf-16-le")
    with pytest.raises(UnreadableDocument, match="password"):
        parse(data, doc_id="secret.docx", uri="")


@pytest.mark.parametrize("data", [b"", b" \r\n\t", b"\0\0"])
def test_an_empty_file_says_so(data: bytes) -> None:
    with pytest.raises(UnreadableDocument, match=r"^a\.md: the file is empty$"):
        parse(data, doc_id="a.md", uri="")


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.xlsx"])
def test_content_that_belies_a_binary_ending(name: str) -> None:
    with pytest.raises(UnreadableDocument, match=f"^{name}: "):
        parse(b"just words", doc_id=name, uri="")


def test_a_missing_library_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "indexer.parsing.frontmatter", raising=False)
    monkeypatch.delitem(sys.modules, "indexer.parsing.markdown", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=r"'yaml'.*rag-containers\[indexer\]"):
        parse(b"# a", doc_id="a.md", uri="")


def test_memory_errors_and_interrupts_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from indexer.parsing import text

    for error in (MemoryError, KeyboardInterrupt):

        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr(text, "parse", fail)
        with pytest.raises(error):
            parse(b"x", doc_id="a.txt", uri="")


def test_any_other_failure_is_one_line_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from indexer.parsing import text

    def fail(*_: object) -> None:
        raise AttributeError("no\nsuch  thing")

    monkeypatch.setattr(text, "parse", fail)
    with pytest.raises(UnreadableDocument) as caught:
        parse(b"x", doc_id="a.txt", uri="")
    assert str(caught.value) == "a.txt: the file is damaged: AttributeError no such thing"
    assert isinstance(caught.value.__cause__, AttributeError)
