"""Nested values that a document says of itself (YAML, JSON, TOML) to flat metadata."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag.errors import UnreadableDocument
from rag.types import Scalar

_MAX_VALUES = 1_000  # YAML aliases can make a few bytes expand without end


def flatten(values: Mapping[Any, Any]) -> dict[str, Scalar | Sequence[Scalar]]:
    """`{'a': {'b': 1}}` is `{'a.b': 1}`; lists of plain values stay lists, nulls are left out.

    Raises UnreadableDocument beyond 1,000 values.
    """
    flat: dict[str, Scalar | Sequence[Scalar]] = {}
    for count, (key, value) in enumerate(_walk("", values)):
        if count >= _MAX_VALUES:
            raise UnreadableDocument(f"its metadata has more than {_MAX_VALUES} values")
        flat[key] = value
    return flat


def scalar(value: Any) -> Scalar | None:
    """The value as JSON can hold it, dates in ISO 8601; None for null, NaN and containers."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return None


def _walk(prefix: str, value: Any) -> Iterator[tuple[str, Scalar | Sequence[Scalar]]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = str(key)
            yield from _walk(f"{prefix}.{name}" if prefix else name, inner)
    elif isinstance(value, list | tuple | set):
        items = sorted(value, key=str) if isinstance(value, set) else value
        scalars = [scalar(item) for item in items]
        if all(item is not None for item in scalars):
            if scalars:
                yield prefix, [item for item in scalars if item is not None]
        else:
            for i, inner in enumerate(items):
                yield from _walk(f"{prefix}.{i}", inner)
    elif (plain := scalar(value)) is not None:
        yield prefix, plain
