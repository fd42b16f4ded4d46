"""Metadata beside a document, as Bedrock Knowledge Bases read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rag.errors import UnreadableDocument
from rag.types import Metadata, Scalar

SIDECAR = ".metadata.json"
"""`NAME.metadata.json` beside `NAME` holds its metadata: `{"metadataAttributes": {"year": 2024}}`.
A value may also say its type: `{"value": {"type": "NUMBER", "numberValue": 2024}}`.
"""
_TYPED = {
    "STRING": "stringValue",
    "NUMBER": "numberValue",
    "BOOLEAN": "booleanValue",
    "STRING_LIST": "stringListValue",
}


def sidecar_metadata(data: bytes, key: str) -> Metadata:
    """The metadata in the sidecar of the document `key`; nested names are joined with dots.

    Raises UnreadableDocument for a sidecar that cannot be understood.
    """
    try:
        return dict(_flat(json.loads(data)["metadataAttributes"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableDocument(
            f'its sidecar {key}{SIDECAR} is not {{"metadataAttributes": {{name: value}}}} ({error})'
        ) from None


def _flat(attributes: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if isinstance(value, dict):
            inner = value.get("value")
            if isinstance(inner, dict) and "type" in inner:
                yield f"{prefix}{name}", _typed(f"{prefix}{name}", inner)
            else:
                yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Scalar) or _is_scalar_list(value):
            yield f"{prefix}{name}", value
        else:
            raise TypeError(f"{prefix}{name} is {type(value).__name__}")


def _typed(name: str, value: dict[str, Any]) -> Any:
    field = _TYPED.get(value["type"])
    if field is None or field not in value:
        raise TypeError(f"{name} has the type {value['type']!r} and no value of it")
    found = value[field]
    if not (isinstance(found, Scalar) or _is_scalar_list(found)):
        raise TypeError(f"{name} is {type(found).__name__}")
    return found


def _is_scalar_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Scalar) for item in value)
