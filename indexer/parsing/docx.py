"""Word documents: headings, paragraphs, lists and tables in the order of the document."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import docx
from docx.oxml.ns import qn

from indexer.parsing.archive import open_office_archive
from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.ooxml import core_properties

_HEADING = re.compile(
    r"(?:heading|제목|überschrift|titre|título|見出し|标题)\s*([1-9])", re.IGNORECASE
)
_CODE_STYLE = re.compile(r"code|source|preformatted", re.IGNORECASE)
_P, _TBL, _SDT, _SDT_CONTENT = qn("w:p"), qn("w:tbl"), qn("w:sdt"), qn("w:sdtContent")
_TR, _TC, _BODY_END = qn("w:tr"), qn("w:tc"), qn("w:sectPr")
_TEXT = {qn("w:t"), qn("m:t")}
_BREAKS = {qn("w:br"), qn("w:cr")}
_MATH_SIGNS = {qn("m:den"): "/", qn("m:sup"): "^", qn("m:sub"): "_"}
_TAB, _NO_BREAK_HYPHEN = qn("w:tab"), qn("w:noBreakHyphen")
# Removed text, field codes, the old copy of a drawing, and boxes (added after their paragraph).
_SKIPPED = {
    qn("w:del"), qn("w:moveFrom"), qn("w:instrText"), qn("w:pPr"), qn("w:rPr"),
    qn("w:txbxContent"), "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
}  # fmt: skip
_MAX_DEPTH = 20


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the body of the document in `data`; of its core properties the title and who wrote it.

    Headers, footers and comments are left out, tracked insertions are taken, deletions are not.
    """
    open_office_archive(data).close()
    document = docx.Document(io.BytesIO(data))
    core_properties(document.core_properties, builder)
    _Walker(document, builder).walk(document.element.body)


class _Walker:
    def __init__(self, document: Any, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._styles = {style.style_id: style for style in document.styles if style.style_id}
        self._numbering = _Numbering(document)
        self._code: list[str] = []

    def walk(self, body: Any) -> None:
        self._blocks(body, 0)
        self._end_code()

    def _blocks(self, parent: Any, depth: int) -> None:
        for element in parent.iterchildren():
            if element.tag == _P:
                self._paragraph(element, depth)
            elif element.tag == _TBL:
                self._end_code()
                self._table(element, depth)
            elif depth < _MAX_DEPTH and element.tag != _BODY_END:
                # Content controls and other wrappers: what they hold is part of the text.
                self._blocks(element, depth + 1)

    def _paragraph(self, element: Any, depth: int) -> None:
        text = _text(element)
        names = self._style_names(element)
        if any(_CODE_STYLE.search(name) for name in names):
            self._code.append(text)
        else:
            self._end_code()
            self._prose(element, text, names)
        if depth < _MAX_DEPTH:
            for box in _boxes(element):
                self._blocks(box, depth + 1)

    def _prose(self, element: Any, text: str, names: list[str]) -> None:
        if not text.strip():
            return
        if level := self._heading_level(element, names):
            self._builder.heading(text, level)
        elif (place := self._numbering.place(element, self._styles)) is not None:
            depth, marker = place
            self._builder.list_item(text, depth, marker)
        else:
            self._builder.paragraph(text)

    def _end_code(self) -> None:
        lines, self._code = self._code, []
        if lines:
            self._builder.code("\n".join(lines))

    def _style_names(self, element: Any) -> list[str]:
        """The paragraph's style and those it is based on, by name."""
        names: list[str] = []
        style = self._styles.get(element.style)
        while style is not None and len(names) < 10:
            names.append(style.name or "")
            style = getattr(style, "base_style", None)
        return names

    def _heading_level(self, element: Any, names: list[str]) -> int:
        for name in names:
            if name.lower() in ("title", "제목"):
                return 1
            if match := _HEADING.fullmatch(name.strip()):
                return int(match[1])
        outline = element.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")
        value = "9" if outline is None else outline.get(qn("w:val"), "9")
        return int(value) + 1 if value in tuple("012345") else 0

    def _table(self, element: Any, depth: int) -> None:
        """A grid becomes a table; a single cell is a frame around ordinary blocks."""
        rows = list(_rows(element))
        if depth < _MAX_DEPTH and max((len(cells) for _, cells in rows), default=0) <= 1:
            for _, cells in rows:
                for cell in cells:
                    self._blocks(cell, depth + 1)
            return
        marked = 0
        for is_header, _ in rows:
            if not is_header:
                break
            marked += 1
        lines = [[text for cell in cells for text in _cell_texts(cell)] for _, cells in rows]
        self._builder.table(lines, header_rows=marked or 1)


class _Numbering:
    """Which paragraphs are list items, how deep, and with what mark."""

    def __init__(self, document: Any) -> None:
        self._formats: dict[tuple[str, str], str] = {}
        self._counts: dict[tuple[str, int], int] = {}
        parts = [
            rel.target_part
            for rel in document.part.rels.values()
            if rel.reltype.endswith("/numbering") and not rel.is_external
        ]
        if not parts:
            return
        root = parts[0].element
        abstract = {
            node.get(qn("w:abstractNumId")): {
                level.get(qn("w:ilvl")): level.find(qn("w:numFmt"))
                for level in node.iterchildren(qn("w:lvl"))
            }
            for node in root.iterchildren(qn("w:abstractNum"))
        }
        for num in root.iterchildren(qn("w:num")):
            target = num.find(qn("w:abstractNumId"))
            levels = abstract.get(None if target is None else target.get(qn("w:val")), {})
            for level, fmt in levels.items():
                if fmt is not None:
                    self._formats[num.get(qn("w:numId")), level] = fmt.get(qn("w:val"), "")

    def place(self, paragraph: Any, styles: dict[str, Any]) -> tuple[int, str] | None:
        """Depth from 0 and the mark ('-' or '3.') of a list item; None for other paragraphs."""
        properties = _number_properties(paragraph, styles)
        if properties is None:
            return None
        number_id, depth = properties
        fmt = self._formats.get((number_id, str(depth)), "bullet")
        if fmt == "none":
            return None
        for key in [key for key in self._counts if key[0] == number_id and key[1] > depth]:
            del self._counts[key]
        count = self._counts.get((number_id, depth), 0) + 1
        self._counts[number_id, depth] = count
        return depth, "-" if fmt == "bullet" else f"{count}."


def _number_properties(paragraph: Any, styles: dict[str, Any]) -> tuple[str, int] | None:
    holders = [paragraph]
    style = styles.get(paragraph.style)
    while style is not None and len(holders) < 10:
        holders.append(style.element)
        style = getattr(style, "base_style", None)
    for holder in holders:
        found = holder.find(f"{qn('w:pPr')}/{qn('w:numPr')}")
        if found is None:
            continue
        number_id, level = found.find(qn("w:numId")), found.find(qn("w:ilvl"))
        value = "0" if number_id is None else number_id.get(qn("w:val"), "0")
        if value == "0":  # numbering taken off again
            return None
        depth = "0" if level is None else level.get(qn("w:val"), "0")
        return value, min(8, int(depth)) if depth.isdecimal() else 0
    return None


def _text(paragraph: Any) -> str:
    return "".join(_pieces(paragraph, 0))


def _pieces(element: Any, depth: int) -> Iterator[str]:
    for child in element.iterchildren():
        tag = child.tag
        if tag in _TEXT:
            yield child.text or ""
        elif tag in _BREAKS:
            yield "\n"
        elif tag == _TAB:
            yield "\t"
        elif tag == _NO_BREAK_HYPHEN:
            yield "-"
        elif tag not in _SKIPPED and depth < 60:
            inner = "".join(_pieces(child, depth + 1))
            yield _MATH_SIGNS.get(tag, "") + inner if inner else ""


def _boxes(paragraph: Any) -> list[Any]:
    """The text boxes anchored in a paragraph, each once (drawings carry an old copy beside)."""
    fallback = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
    box = qn("w:txbxContent")
    return [
        node
        for node in paragraph.iter(box)
        if not any(up.tag in (fallback, box) for up in _ancestors(node, paragraph))
    ]


def _ancestors(node: Any, stop: Any) -> Iterator[Any]:
    node = node.getparent()
    while node is not None and node is not stop:
        yield node
        node = node.getparent()


def _rows(table: Any) -> Iterator[tuple[bool, list[Any]]]:
    for row in table.iterchildren(_TR):
        is_header = row.find(f"{qn('w:trPr')}/{qn('w:tblHeader')}") is not None
        cells: list[Any] = []
        for child in row.iterchildren():
            if child.tag == _TC:
                cells.append(child)
            elif child.tag == _SDT:
                cells.extend(child.iterfind(f"{_SDT_CONTENT}/{_TC}"))
        yield is_header, cells


def _cell_texts(cell: Any) -> list[str]:
    """The cell's text, and an empty text for each further column that it spans."""
    span = cell.find(f"{qn('w:tcPr')}/{qn('w:gridSpan')}")
    width = "1" if span is None else span.get(qn("w:val"), "1")
    columns = min(100, int(width)) if width.isdecimal() else 1
    text = " ".join(_text(paragraph) for paragraph in cell.iter(_P))
    return [text] + [""] * (columns - 1)
