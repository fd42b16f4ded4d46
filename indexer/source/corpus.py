"""Text corpora: JSON Lines and Parquet files in which every row is a document."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from indexer.parsing.metadata import flatten
from rag.errors import ConfigurationError, UnreadableDocument
from rag.types import Metadata

ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".parquet": "parquet",
}
ALL = "*"
_ROWS_AT_ONCE = 1024
_MAX_LINE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class CorpusColumns:
    """Which columns of a row are its text, its id (None: the row's number), its title (None: none)
    and its metadata ('*' alone: all that are left). Nested metadata is joined with dots.
    """

    text: str
    id: str | None = None
    title: str | None = None
    metadata: tuple[str, ...] = ()


class Row(NamedTuple):
    """One row: its id, and either what it says or, in `problem`, why it says nothing."""

    id: str
    text: str = ""
    title: str = ""
    metadata: Metadata | None = None
    problem: str | None = None


def corpus_format(key: str) -> str | None:
    """'jsonl' or 'parquet' for the key of a text corpus, else None."""
    return next((name for end, name in ENDINGS.items() if key.lower().endswith(end)), None)


def read_rows(path: Path, key: str, columns: CorpusColumns) -> Iterator[Row]:
    """The rows of the corpus in `path`, in order, a few in memory at a time.

    A row without text has a `problem`. Raises UnreadableDocument for a file that cannot be read
    or lacks a column, ConfigurationError where pyarrow's Parquet is missing.
    """
    read = _read_parquet if corpus_format(key) == "parquet" else _read_lines
    for number, values in enumerate(read(path, key, columns), start=1):
        yield _row(number, key, values, columns)


def _row(number: int, key: str, values: Any, columns: CorpusColumns) -> Row:
    id_ = f"{key}#{number}"
    if not isinstance(values, Mapping):
        return Row(id_, problem=f"row {number} is no JSON object")
    if columns.id is not None:
        given = values.get(columns.id)
        if not isinstance(given, str | int) or given == "" or isinstance(given, bool):
            return Row(id_, problem=f"row {number} has no id in '{columns.id}'")
        id_ = str(given)
    text = values.get(columns.text)
    if not isinstance(text, str):
        return Row(id_, problem=f"row {number} has no text in '{columns.text}'")
    title = values.get(columns.title) if columns.title is not None else None
    try:
        metadata = flatten(_chosen(values, columns))
    except UnreadableDocument as error:
        return Row(id_, problem=str(error))
    return Row(id_, text, "" if title is None else str(title), metadata)


def _chosen(values: Mapping[str, Any], columns: CorpusColumns) -> dict[str, Any]:
    if columns.metadata == (ALL,):
        taken = {columns.text, columns.id, columns.title}
        return {name: value for name, value in values.items() if name not in taken}
    return {name: values[name] for name in columns.metadata if name in values}


def _read_lines(path: Path, key: str, columns: CorpusColumns) -> Iterator[Any]:
    opener = gzip.open if key.lower().endswith(".gz") else open
    try:
        with cast(IO[bytes], opener(path, "rb")) as file:
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) >= _MAX_LINE:
                    raise UnreadableDocument(f"line {number} is longer than {_MAX_LINE} bytes")
                if line.strip():
                    yield _loads(line)
    except (OSError, EOFError) as error:
        raise UnreadableDocument(f"it cannot be read: {error}") from None


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_parquet(path: Path, key: str, columns: CorpusColumns) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigurationError(f"Parquet needs pyarrow with Parquet ({error})") from None
    try:
        with parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            wanted = [columns.text, columns.id, columns.title, *columns.metadata]
            names = [name for name in wanted if name is not None and name != ALL]
            if missing := [name for name in names if name not in there]:
                raise UnreadableDocument(
                    f"it has no column '{missing[0]}' (there are: {', '.join(there)})"
                )
            chosen = None if ALL in columns.metadata else names
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=chosen):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableDocument(f"it is no readable Parquet file: {reason}") from None
