"""OpenDocument text, presentations and spreadsheets: one walk over `content.xml`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from indexer.parsing.archive import READ_ERRORS, open_office_archive
from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.delimited import looks_like_header
from indexer.parsing.safe_xml import local_name, parse_xml
from rag.errors import UnreadableDocument

_OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_PRESENTATION = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}"
_SKIPPED_WORDS = (
    "annotation annotation-end tracked-changes forms scripts sequence-decls note-citation "
    "ruby-text title desc shapes calculation-settings named-expressions database-ranges"
)
_SKIPPED = frozenset(_SKIPPED_WORDS.split())
_FURNITURE = frozenset(("date-time", "footer", "header", "page-number"))
_META = {
    "initial-creator": "author",
    "creator": "author",
    "subject": "subject",
    "keyword": "keywords",
    "creation-date": "created",
}
_MAX_REPEAT = 100
_MAX_DEPTH = 60


def parse_text(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the text document in `data`."""
    body = _body(data, builder, "text")
    _Walker(builder, title_styles=_title_styles(body)).children(body, 0)


def parse_presentation(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the slides of the presentation in `data`, each a page."""
    body = _body(data, builder, "presentation")
    slides = [child for child in body if local_name(child) == "page"]
    builder.metadata["slides"] = len(slides)
    for page, slide in enumerate(slides, start=1):
        _Walker(builder, page).children(slide, 0)
        builder.end_list()


def parse_spreadsheet(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the sheets of the spreadsheet in `data`, each a heading and a table."""
    body = _body(data, builder, "spreadsheet")
    sheets = [child for child in body if local_name(child) == "table"]
    builder.metadata["sheets"] = len(sheets)
    for sheet in sheets:
        rows = [row for row in _rows(sheet) if any(row)]
        if rows:
            builder.heading(sheet.get(f"{_TABLE}name", ""), 1)
        while len(rows) > 1 and sum(1 for cell in rows[0] if cell) == 1:
            builder.paragraph("".join(rows.pop(0)))  # a caption above the header
        builder.table(rows, header_rows=int(bool(rows) and looks_like_header(rows[0])))


def _body(data: bytes, builder: DocumentBuilder, kind: str) -> Any:
    with open_office_archive(data) as archive:
        if b"manifest:encryption-data" in _member(archive, "META-INF/manifest.xml"):
            raise UnreadableDocument("it is password-protected: remove the password first")
        if about := _member(archive, "meta.xml"):
            _properties(parse_xml(about), builder)
        content = _member(archive, "content.xml")
    if not content:
        raise UnreadableDocument("the container holds no content.xml")
    body = parse_xml(content).find(f"{{{_OFFICE}}}body/{{{_OFFICE}}}{kind}")
    if body is None:
        raise UnreadableDocument(f"its content is no {kind}")
    return body


def _title_styles(body: Any) -> frozenset[str]:
    """The paragraph style 'Title' and the document's own variants of it."""
    root = body.getroottree().getroot()
    variants = (
        style.get(f"{_STYLE}name")
        for style in root.iter(f"{_STYLE}style")
        if style.get(f"{_STYLE}parent-style-name") == "Title"
    )
    return frozenset(("Title", *(name for name in variants if name)))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if name not in archive.namelist():
        return b""
    try:
        return archive.read(name)
    except READ_ERRORS as error:
        raise UnreadableDocument(f"'{name}' in the container is damaged: {error}") from error


def _properties(root: Any, builder: DocumentBuilder) -> None:
    for element in root.iter():
        name, text = local_name(element), (element.text or "").strip()
        if text and name == "title":
            builder.title = text
        elif text and name in _META:
            builder.metadata.setdefault(_META[name], text)


class _Walker:
    def __init__(
        self,
        builder: DocumentBuilder,
        page: int | None = None,
        title_styles: frozenset[str] = frozenset(),
    ) -> None:
        self._builder = builder
        self._title_styles = title_styles
        self._page = page
        self._lists = 0
        self._marker: str | None = None

    def children(self, parent: Any, depth: int) -> None:
        if depth < _MAX_DEPTH:
            for child in parent:
                self._element(child, depth + 1)

    def _element(self, element: Any, depth: int) -> None:
        name = local_name(element)
        if name in _SKIPPED or element.get(f"{_PRESENTATION}class") in _FURNITURE:
            return
        if name == "h":
            level = element.get(f"{_TEXT}outline-level", "1")
            self._builder.heading(
                _text(element), int(level) if level.isdecimal() else 1, self._page
            )
        elif name == "p" and element.get(f"{_TEXT}style-name") in self._title_styles:
            self._builder.heading(_text(element), 1, self._page)
        elif name == "p":
            self._paragraph(element, depth)
        elif name == "list":
            self._list(element, depth)
        elif name == "table":
            self._builder.table(_rows(element), self._header_rows(element), self._page)
        elif element.get(f"{_PRESENTATION}class") == "title":
            level = 1 if self._page == 1 else 2
            self._builder.heading(
                " ".join(map(_text, element.iter(f"{_TEXT}p"))), level, self._page
            )
        else:
            self.children(element, depth)

    def _paragraph(self, element: Any, depth: int) -> None:
        text = _text(element)
        if self._lists:
            self._builder.list_item(text, self._lists - 1, self._marker, self._page)
            if text.strip():
                self._marker = None
        else:
            self._builder.paragraph(text, self._page)
        for box in element.iter(f"{_DRAW}text-box"):
            self.children(box, depth + 1)

    def _list(self, element: Any, depth: int) -> None:
        self._lists += 1
        for item in element:
            self._marker = "-"
            self.children(item, depth + 1)
        self._lists -= 1
        if not self._lists:
            self._builder.end_list()

    @staticmethod
    def _header_rows(table: Any) -> int:
        marked = sum(1 for _ in table.iterfind(f"{_TABLE}table-header-rows/{_TABLE}table-row"))
        return marked or 1


def _rows(table: Any) -> Iterator[list[str]]:
    for row in table:
        if local_name(row) in ("table-header-rows", "table-rows", "table-row-group"):
            yield from _rows(row)
        if local_name(row) != "table-row":
            continue
        cells: list[str] = []
        for cell in row:
            if local_name(cell) not in ("table-cell", "covered-table-cell"):
                continue
            text = " ".join(_text(p) for p in cell.iter(f"{_TEXT}p", f"{_TEXT}h"))
            cells.extend([text] * _repeats(cell, "number-columns-repeated", text))
        for _ in range(_repeats(row, "number-rows-repeated", "".join(cells))):
            yield cells


def _repeats(element: Any, name: str, text: str) -> int:
    """How often a cell or row stands there; one for a blank, of which sheets claim millions."""
    value = element.get(f"{_TABLE}{name}", "1")
    if not value.isdecimal() or len(value) > 9:
        return 1
    return max(1, min(int(value), _MAX_REPEAT if text.strip() else 64))


def _text(element: Any) -> str:
    return "".join(_pieces(element, 0))


def _pieces(element: Any, depth: int) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        name = local_name(child)
        if name == "s":
            yield " " * min(100, int(child.get(f"{_TEXT}c", "1")))
        elif name == "tab":
            yield "\t"
        elif name == "line-break":
            yield "\n"
        elif name not in _SKIPPED and name != "text-box" and depth < _MAX_DEPTH:
            yield from _pieces(child, depth + 1)
        yield child.tail or ""
