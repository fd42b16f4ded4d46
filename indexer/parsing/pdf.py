"""PDF, page by page, over PDFium."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import takewhile

import pypdfium2

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.cleaning import one_line
from indexer.parsing.pdf_layout import Piece, pieces
from indexer.parsing.pdf_lines import page_lines, without_furniture
from rag.errors import UnreadableDocument

_PDFIUM = threading.Lock()  # PDFium keeps global state: one caller at a time in a process
_META = {"Author": "author", "Subject": "subject", "Keywords": "keywords"}
_RUNNING_TEXT = 100  # characters; what is longer is no byline or date
_DATE = re.compile(r"(?:D:)?(\d{4})(\d\d)?(\d\d)?")
# Names of files and programs that stand where a title or an author should.
_PLACEHOLDER = re.compile(
    r"untitled.*|microsoft (?:word|powerpoint|excel)\b.*|.*\.(?:docx?|hwpx?|indd|pdf|pptx?|ps|qxd|"
    r"tex|dvi|txt|xlsx?|html?)|\(?(?:anonymous|unspecified)\)?|title|document\s*\d*|print|"
    r"powerpoint presentation|slide 1|제목 ?없음|[\W\d_]*",
    re.IGNORECASE,
)


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the text of the PDF in `data`, without running headers, footers and page numbers."""
    with _PDFIUM:
        document = _open(data)
        try:
            pages = [page_lines(page, i) for i, page in enumerate(document, start=1)]
            about = document.get_metadata_dict()
        finally:
            document.close()
    if not any(lines for lines, _ in pages):
        raise UnreadableDocument("it has no text layer (a scan?): run OCR on it first")
    lines = without_furniture([lines for lines, _ in pages], [height for _, height in pages])
    found = pieces(lines)
    for piece in found:
        if piece.level:
            builder.heading(piece.text, piece.level, piece.page)
        elif piece.is_item:
            builder.list_item(piece.text, page=piece.page)
        else:
            builder.paragraph(piece.text, piece.page)
    title = one_line(about.get("Title", ""))
    if not _PLACEHOLDER.fullmatch(title) and "\ufffd" not in title:
        builder.title = title
    else:
        builder.title = _first_heading(found)
    _metadata(about, builder, len(pages))


def _first_heading(found: Sequence[Piece]) -> str | None:
    """The highest heading above the first page's text, else the highest on that page."""
    page = [piece for piece in found if piece.page == 1]
    above = takewhile(lambda piece: piece.level or len(piece.text) < _RUNNING_TEXT, page)
    for part in (above, page):
        if headings := [piece for piece in part if piece.level]:
            return min(headings, key=lambda piece: piece.level).text
    return None


def _open(data: bytes) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            message = "it is password-protected: remove the password first"
        else:
            message = f"it is no readable PDF: {error}"
        raise UnreadableDocument(message) from error


def _metadata(about: dict[str, str], builder: DocumentBuilder, pages: int) -> None:
    for field, key in _META.items():
        value = one_line(about.get(field, ""))
        if not _PLACEHOLDER.fullmatch(value):
            builder.metadata[key] = value
    if match := _DATE.match(about.get("CreationDate", "")):
        builder.metadata["created"] = "-".join(part for part in match.groups() if part)
    builder.metadata["pages"] = pages
