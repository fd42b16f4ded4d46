"""Puts extracted pieces together into a Document, so that no parser ever computes an offset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from indexer.parsing.cleaning import clean, clean_lines, one_line, verbatim
from indexer.parsing.language import document_language
from rag.errors import UnreadableDocument
from rag.types import Block, BlockKind, Document, Metadata, Scalar

_MAX_TITLE = 300
MAX_CELLS = 20_000_000
_TOO_LARGE = f"a table in it has more than {MAX_CELLS:,} cells: split it"


class DocumentBuilder:
    """Collects blocks in reading order; blank ones are dropped.

    A parser may set `title` and `lang` where the document declares them, and put what it says of
    itself into `metadata`. Pages count from 1.
    """

    def __init__(self) -> None:
        self.title: str | None = None
        self.lang: str | None = None
        self.metadata: dict[str, Scalar | Sequence[Scalar]] = {}
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0
        self._items: list[str] = []
        self._items_page: int | None = None

    def heading(self, text: str, level: int, page: int | None = None) -> None:
        """A heading; levels outside 1 to 6 are clamped."""
        text, level = one_line(text), max(1, min(6, level))
        self._add(BlockKind.HEADING, text, page, level=level)

    def paragraph(self, text: str, page: int | None = None) -> None:
        """A paragraph; its line breaks are kept, its empty lines are not."""
        self._add(BlockKind.PARAGRAPH, clean_lines(text), page)

    def list_item(
        self, text: str, depth: int = 0, marker: str | None = "-", page: int | None = None
    ) -> None:
        """One item; items in a row form one list, until another block or `end_list`.

        `depth` counts from 0; marker None continues the item before with another paragraph.
        """
        lines = clean_lines(text).split("\n")
        if lines == [""]:
            return
        if not self._items:
            self._items_page = page
        indent = "  " * depth
        first = f"{indent}  " if marker is None else f"{indent}{marker} "
        self._items.append(first + lines[0])
        self._items.extend(f"{indent}  {line}" for line in lines[1:])

    def end_list(self) -> None:
        """Closes the open list, so that a next item starts another one."""
        items, self._items = self._items, []
        if items:
            self._add(BlockKind.LIST, "\n".join(items).strip(), self._items_page)

    def table(
        self, rows: Iterable[Sequence[str]], header_rows: int = 0, page: int | None = None
    ) -> None:
        """A table as Markdown pipe rows, one row a line; empty rows and columns are dropped.

        Where there are header rows, `header_end` is the end of the last of them, and Markdown's
        separator line follows as part of the body. Raises UnreadableDocument beyond 20 million
        cells.
        """
        cells: list[list[str]] = []
        count = blank_headers = 0
        for number, row in enumerate(rows):
            count += len(row)
            if count > MAX_CELLS:
                raise UnreadableDocument(_TOO_LARGE)
            shown = [_cell(cell) for cell in row]
            if any(shown):
                cells.append(shown)
            elif number < header_rows:
                blank_headers += 1
        header_rows -= blank_headers
        cells = _without_empty_columns(cells)
        if not cells:
            return
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        header_end = None
        if 0 < header_rows < len(lines):
            header_end = sum(map(len, lines[:header_rows])) + header_rows - 1
            lines.insert(header_rows, "|" + "---|" * len(cells[0]))
        self._add(BlockKind.TABLE, "\n".join(lines), page, header_end=header_end)

    def code(self, text: str, page: int | None = None) -> None:
        """Code, kept as it is but for line ends and control characters."""
        self._add(BlockKind.CODE, verbatim(text), page)

    def build(self, *, doc_id: str, uri: str, format_name: str, extra: Metadata | None) -> Document:
        """The finished document; `extra` overrides metadata of the same name.

        The title is the declared one, else the first level-1 heading, else the file's stem.
        Raises UnreadableDocument when there is no text.
        """
        self.end_list()
        if not self._blocks:
            raise UnreadableDocument("there is no extractable text in it")
        text = "".join(self._parts)
        return Document(
            doc_id=doc_id,
            uri=uri,
            title=self._title(doc_id, text),
            text=text,
            blocks=tuple(self._blocks),
            lang=document_language(self.lang, self._prose(text)),
            format=format_name,
            metadata={**_clean_metadata(self.metadata), **(extra or {})},
        )

    @property
    def is_empty(self) -> bool:
        """True while there is no block."""
        return not self._blocks and not self._items

    def _add(
        self,
        kind: BlockKind,
        text: str,
        page: int | None,
        *,
        level: int = 0,
        header_end: int | None = None,
    ) -> None:
        if not text.strip():
            return
        self.end_list()
        if self._parts:
            self._parts.append("\n\n")
            self._length += 2
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        end = None if header_end is None else start + header_end
        self._blocks.append(Block(kind, start, self._length, page, level, end))

    def _title(self, doc_id: str, text: str) -> str:
        declared = one_line(self.title or "")
        if declared:
            return declared[:_MAX_TITLE].rstrip()
        for block in self._blocks:
            if block.kind is BlockKind.HEADING and block.level == 1:
                return text[block.start : block.end][:_MAX_TITLE].rstrip()
        return one_line(PurePosixPath(doc_id).stem) or doc_id

    def _prose(self, text: str) -> str:
        """The text without its code, whose English says nothing of the document's language."""
        prose = [text[b.start : b.end] for b in self._blocks if b.kind is not BlockKind.CODE]
        return "\n".join(prose) if prose else text


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


def _without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
    """Rows of equal length, without the columns that are empty everywhere."""
    columns = sorted({i for row in rows for i, cell in enumerate(row) if cell})
    if len(rows) * len(columns) > MAX_CELLS:
        raise UnreadableDocument(_TOO_LARGE)
    return [[row[i] if i < len(row) else "" for i in columns] for row in rows]


def _clean_metadata(
    metadata: Mapping[str, Scalar | Sequence[Scalar]],
) -> dict[str, Scalar | Sequence[Scalar]]:
    cleaned: dict[str, Scalar | Sequence[Scalar]] = {}
    for key, value in metadata.items():
        if isinstance(value, str):
            if text := clean(value).strip():
                cleaned[clean(key)] = text
        elif isinstance(value, Sequence):
            cleaned[clean(key)] = [clean(v).strip() if isinstance(v, str) else v for v in value]
        else:
            cleaned[clean(key)] = value
    return cleaned
