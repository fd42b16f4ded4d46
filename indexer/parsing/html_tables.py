"""The cells of an HTML table in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

from bs4.element import Tag

from indexer.parsing.html_nodes import attribute, text_of

_MAX_REPEATED = 200  # characters of a cell that are repeated in the rows it spans


def grid(cells: Sequence[Sequence[Tag]]) -> list[list[str]]:
    """Cell texts in columns: a spanned column is left empty, a spanned row repeats its text."""
    grid: list[list[str]] = []
    pending: dict[int, tuple[int, str]] = {}  # column -> rows still to fill, text
    for row in cells:
        line: list[str] = []
        for cell in row:
            _fill(line, pending)
            text = text_of(cell)
            columns, rows = _span(cell, "colspan", 20), _span(cell, "rowspan", 100)
            if rows > 1:
                pending[len(line)] = (rows - 1, text if len(text) <= _MAX_REPEATED else "")
            line.extend([text] + [""] * (columns - 1))
        _fill(line, pending)
        grid.append(line)
    return grid


def _fill(line: list[str], pending: dict[int, tuple[int, str]]) -> None:
    while (column := len(line)) in pending:
        rows, text = pending.pop(column)
        line.append(text)
        if rows > 1:
            pending[column] = (rows - 1, text)


def _span(cell: Tag, name: str, limit: int) -> int:
    value = attribute(cell, name)
    return max(1, min(limit, int(value))) if value.isdecimal() and len(value) < 6 else 1
