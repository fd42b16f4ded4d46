"""Excel workbooks: each sheet a heading and its tables, read as a stream."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import Any

import openpyxl
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from indexer.parsing.archive import open_office_archive
from indexer.parsing.builder import MAX_CELLS, DocumentBuilder
from indexer.parsing.delimited import looks_like_header
from rag.errors import UnreadableDocument

_MAX_EMPTY_ROWS = 10_000  # sheets may claim a million rows and hold ten


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the sheets of the workbook in `data`: stored values, not formulas."""
    open_office_archive(data).close()
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    properties = book.properties
    builder.title = properties.title
    for key, value in (
        ("author", properties.creator),
        ("subject", properties.subject),
        ("keywords", properties.keywords),
    ):
        if value and value != "openpyxl":
            builder.metadata[key] = value
    sheets = [s for s in book.worksheets if isinstance(s, ReadOnlyWorksheet)]
    shown = [sheet for sheet in sheets if sheet.sheet_state == "visible"]
    builder.metadata["sheets"] = len(shown)
    for sheet in shown:
        _add_sheet(sheet, builder)
    book.close()


def _add_sheet(sheet: ReadOnlyWorksheet, builder: DocumentBuilder) -> None:
    sheet.reset_dimensions()  # the stored extent may be wrong; rows then end where cells end
    named = False
    for table in _tables(sheet):
        if not named:
            builder.heading(sheet.title, 1)
            named = True
        while table and sum(1 for cell in table[0] if cell) == 1 and len(table) > 1:
            builder.paragraph("".join(table.pop(0)))  # a caption above the header
        if len(table) == 1:
            builder.paragraph(" ".join(cell for cell in table[0] if cell))
        else:
            builder.table(table, header_rows=int(looks_like_header(_used(table))))


def _used(table: list[list[str]]) -> list[str]:
    """The first row, over those columns only that hold anything."""
    width = max(map(len, table))
    columns = [i for i in range(width) if any(i < len(row) and row[i] for row in table)]
    return [table[0][i] if i < len(table[0]) else "" for i in columns]


def _tables(sheet: Any) -> Iterator[list[list[str]]]:
    """Runs of rows between empty ones."""
    table: list[list[str]] = []
    empty = count = 0
    for cells in sheet.iter_rows():
        row = [_shown(cell) for cell in cells]
        while row and not row[-1]:
            row.pop()
        count += len(row)
        if count > MAX_CELLS:
            raise UnreadableDocument(f"a sheet has more than {MAX_CELLS:,} cells: split it")
        if any(row):
            table.append(row)
            empty = 0
            continue
        if table:
            yield table
            table = []
        empty += 1
        if empty > _MAX_EMPTY_ROWS:
            return
    if table:
        yield table


def _shown(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float):
        percent = "%" in str(cell.number_format)
        return f"{value * 100:.10g}%" if percent else f"{value:.15g}"
    return str(value).strip()
