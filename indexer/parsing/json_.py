"""JSON and JSON Lines: objects become readable 'key: value' lines, one block for each record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.encoding import decode
from indexer.parsing.metadata import scalar
from rag.errors import UnreadableDocument

_TITLE_KEYS = ("title", "name", "heading", "subject", "제목")


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the value in `data`; an array gives one block for each element."""
    try:
        value = json.loads(decode(data))
    except json.JSONDecodeError as error:
        raise UnreadableDocument(f"it is not valid JSON: {error}") from error
    if isinstance(value, Mapping):
        builder.title = _title(value)
        builder.lang = _string(value, "lang") or _string(value, "language")
    _add(value, builder)


def parse_lines(data: bytes, builder: DocumentBuilder) -> None:
    """Adds one block for each line of `data`."""
    for number, line in enumerate(decode(data).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            _add_record(json.loads(line), builder)
        except json.JSONDecodeError as error:
            raise UnreadableDocument(f"line {number} is not valid JSON: {error}") from error


def _add(value: Any, builder: DocumentBuilder) -> None:
    if isinstance(value, list):
        for record in value:
            _add_record(record, builder)
        return
    if not isinstance(value, Mapping):
        _add_record(value, builder)
        return
    # A list of objects within the object is its records: one block each, under its key.
    records = {k: v for k, v in value.items() if _is_records(v)}
    _add_record({k: v for k, v in value.items() if k not in records}, builder)
    for key, items in records.items():
        builder.heading(str(key), 2)
        for item in items:
            _add_record(item, builder)


def _add_record(record: Any, builder: DocumentBuilder) -> None:
    lines = (f"{key}: {text}" if key else text for key, text in _lines("", record))
    builder.paragraph("\n".join(lines))


def _lines(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        plain = [scalar(item) for item in value]
        if all(item is not None and "\n" not in str(item) for item in plain):
            if plain:
                yield prefix, ", ".join(map(_shown, plain))
        else:
            for i, inner in enumerate(value, start=1):
                yield from _lines(f"{prefix}.{i}" if prefix else str(i), inner)
    elif (shown := scalar(value)) is not None and str(shown).strip():
        yield prefix, _shown(shown)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_records(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )


def _title(value: Mapping[str, Any]) -> str | None:
    return next((text for key in _TITLE_KEYS if (text := _string(value, key))), None)


def _string(value: Mapping[str, Any], key: str) -> str | None:
    found = value.get(key)
    return found.strip() or None if isinstance(found, str) else None
