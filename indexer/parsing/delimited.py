"""CSV and TSV: one table, with the delimiter that fits the first lines best."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.encoding import decode
from rag.errors import UnreadableDocument

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_ROWS = 50
_MAX_FIELD = 2**31 - 1  # fields may hold whole documents; the file is in memory already
_NUMBER = re.compile(r"[-+]?[\d.,\s]*\d[\d.,\s]*%?|\d{4}-\d\d-\d\d.*")
_MAX_NUMBER = 40  # characters; the pattern is not linear


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the rows in `data`; the first is the header unless it holds a number."""
    text = decode(data).removeprefix("\ufeff")
    csv.field_size_limit(_MAX_FIELD)
    try:
        delimiter = _delimiter(text)
        rows = [row for row in _reader(text, delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UnreadableDocument(f"it is not a readable CSV file: {error}") from error
    builder.table(rows, header_rows=int(looks_like_header(rows[0]) if len(rows) > 1 else 0))


def looks_like_header(row: list[str]) -> bool:
    """True for a row of names: most cells filled, none of them a number or a date."""
    filled = [cell.strip() for cell in row if cell.strip()]
    return len(filled) * 2 > len(row) and not any(map(_is_number, filled))


def _is_number(cell: str) -> bool:
    return len(cell) <= _MAX_NUMBER and _NUMBER.fullmatch(cell) is not None


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _delimiter(text: str) -> str:
    """The one that gives the most rows of one same width above 1; a tie goes to the wider."""
    best, best_score = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        widths = [len(row) for row in islice(_reader(text, delimiter), _SAMPLE_ROWS) if row]
        if not widths:
            continue
        width, count = Counter(widths).most_common(1)[0]
        score = (count / len(widths), width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best
