"""The table of formats, and how a file's format is told from its ending and its content."""

from __future__ import annotations

import re
import zipfile
from pathlib import PurePosixPath
from typing import NamedTuple

from indexer.parsing.archive import READ_ERRORS, open_archive
from rag.errors import UnreadableDocument, UnsupportedFormat


class Format(NamedTuple):
    """One format: its short name, the endings of its files, and 'module:function' of its parser.

    `is_text` is True where no magic number tells it, so that its ending is believed.
    """

    name: str
    endings: tuple[str, ...]
    parser: str
    is_text: bool = False


FORMATS = (
    Format("csv", (".csv",), "delimited:parse", True),
    Format("docx", (".docx", ".docm", ".dotx"), "docx:parse"),
    Format("eml", (".eml",), "email_:parse", True),
    Format("epub", (".epub",), "epub:parse"),
    Format("html", (".html", ".htm", ".xhtml"), "html:parse", True),
    Format("ipynb", (".ipynb",), "notebook:parse", True),
    Format("json", (".json",), "json_:parse", True),
    Format("jsonl", (".jsonl", ".ndjson"), "json_:parse_lines", True),
    Format("md", (".md", ".markdown", ".mdx"), "markdown:parse", True),
    Format("odp", (".odp",), "odf:parse_presentation"),
    Format("ods", (".ods",), "odf:parse_spreadsheet"),
    Format("odt", (".odt",), "odf:parse_text"),
    Format("pdf", (".pdf",), "pdf:parse"),
    Format("pptx", (".pptx", ".pptm", ".ppsx"), "pptx:parse"),
    Format("tsv", (".tsv", ".tab"), "delimited:parse", True),
    Format("txt", (".txt", ".text", ".log", ".rst"), "text:parse", True),
    Format("xlsx", (".xlsx", ".xlsm"), "xlsx:parse"),
)
_BY_NAME = {format_.name: format_ for format_ in FORMATS}
_BY_ENDING = {ending: format_ for format_ in FORMATS for ending in format_.endings}
_LEGACY = {
    ".doc": "docx", ".dot": "docx", ".ppt": "pptx", ".pps": "pptx", ".xls": "xlsx", ".msg": "eml",
    ".hwp": "pdf", ".rtf": "docx",
}  # fmt: skip

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OOXML = "EncryptedPackage".encode("utf-16-le")
_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html)\b",
                   re.IGNORECASE | re.DOTALL)  # fmt: skip
_EMAIL = re.compile(rb"(?:(?:From|To|Subject|Date|Received|Return-Path|Message-ID|MIME-Version|"
                    rb"Delivered-To|X-[\w-]+): [^\n]*\n(?:[ \t][^\n]*\n)*){3}",
                    re.IGNORECASE)  # fmt: skip
_ODF = {
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.presentation": "odp",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/epub+zip": "epub",
}
_OOXML = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_BINARY_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1f\x8b", b"\x7fELF", b"MZ", b"RIFF",
                 b"7z\xbc\xaf", b"Rar!", b"BZh", b"\x00\x00\x00 ftyp", b"OggS", b"ID3")  # fmt: skip


def choose_format(data: bytes, doc_id: str) -> Format:
    """The format to read `data` as; content that proves its format wins over the ending.

    Raises UnsupportedFormat, naming the ending and what is supported, and UnreadableDocument for
    an empty file, a password-protected office file, and content that belies a binary ending.
    """
    ending = PurePosixPath(doc_id).suffix.lower()
    if not data.strip(b"\0 \t\r\n"):
        raise UnreadableDocument("the file is empty")
    if proven := _proven_format(data, ending):
        return proven
    claimed = _BY_ENDING.get(ending)
    if claimed is not None and claimed.is_text:
        return claimed
    if claimed is not None:
        if _HTML.match(data[:4096]):
            return _BY_NAME["html"]
        raise UnreadableDocument(f"it is damaged, or no {claimed.name} file at all")
    if ending:
        raise _unsupported(ending)
    return _text_format(data)


def _proven_format(data: bytes, ending: str) -> Format | None:
    """The format that the first bytes prove, or None."""
    if b"%PDF-" in data[:1024] and (ending == ".pdf" or data.lstrip().startswith(b"%PDF-")):
        return _BY_NAME["pdf"]
    if data.startswith(_OLE):
        if _ENCRYPTED_OOXML in data:
            raise UnreadableDocument("it is password-protected: remove the password first")
        raise _unsupported(ending if ending in _LEGACY else ".doc")
    if data.startswith(b"PK\x03\x04"):
        return _zip_format(data, ending)
    if data.startswith(b"{\\rtf"):
        raise _unsupported(".rtf")
    if data.startswith(_BINARY_MAGIC):
        raise _unsupported(ending)
    return None


def _zip_format(data: bytes, ending: str) -> Format:
    claimed = _BY_ENDING.get(ending)
    with open_archive(data) as archive:
        name = _container_name(archive)
    if name is not None:
        return _BY_NAME[name]
    if claimed is not None and not claimed.is_text:
        raise UnreadableDocument(f"it is a zip file, but no {claimed.name} document")
    raise _unsupported(ending or ".zip")


def _container_name(archive: zipfile.ZipFile) -> str | None:
    names = archive.namelist()
    if "mimetype" in names:
        try:
            with archive.open("mimetype") as stream:
                kind = stream.read(100).strip()
        except READ_ERRORS:
            kind = b""
        for prefix, name in _ODF.items():
            if kind.startswith(prefix):
                return name
    if "META-INF/container.xml" in names:
        return "epub"
    for folder, name in _OOXML.items():
        if any(entry.startswith(folder) for entry in names):
            return name
    return None


def _text_format(data: bytes) -> Format:
    """For a file without an ending."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(head):
        return _BY_NAME["html"]
    if _EMAIL.match(head):
        return _BY_NAME["eml"]
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unsupported("")
    return _BY_NAME["txt"]


def _unsupported(ending: str) -> UnsupportedFormat:
    what = f"files of type '{ending}'" if ending else "binary files without an ending"
    advice = f"; convert it to {_LEGACY[ending]}" if ending in _LEGACY else ""
    names = ", ".join(sorted(_BY_NAME))
    return UnsupportedFormat(f"{what} are not supported{advice} (supported: {names})")
