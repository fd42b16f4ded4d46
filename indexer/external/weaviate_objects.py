"""Rows as Weaviate's objects, and the properties that a collection of them has.

An object's UUID is the chunk id itself, whose 32 hex digits are the 128 bits that a UUID has: so
Weaviate's order by UUID is the order by chunk id. Metadata is kept twice: exactly, as JSON in
`metadata`, and for filters in a property of its own for each key and type, named
`meta_TYPE_KEY`. What a name must not hold becomes '_' there, and then eight digits of the key's
SHA-256 follow.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from indexer.external.table import Row

_IDS = {"dataType": ["text"], "tokenization": "field", "indexSearchable": False}
_WORDS = {"dataType": ["text"], "tokenization": "word"}
BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "chunk_id": _IDS,
    "doc_id": _IDS,
    "title": _WORDS,
    "text": _WORDS,
    "uri": _IDS,
    "page": {"dataType": ["int"]},
    "lang": _IDS,
    "format": _IDS,
    "metadata": {**_IDS, "indexFilterable": False},
}
"""What every collection has, as in Weaviate's schema."""
_TYPES = {str: "text", int: "int", float: "number", bool: "boolean"}
_NOT_IN_NAMES = re.compile(r"[^0-9A-Za-z_]")
_MAX_NAME = 150


def object_id(chunk_id: str) -> str:
    """The UUID of the object that holds this passage."""
    return str(uuid.UUID(hex=chunk_id))


def chunk_id_of(object_id: str) -> str:
    """The chunk id that belongs to an object's UUID."""
    return uuid.UUID(object_id).hex


def object_of(row: Row, collection: str) -> dict[str, Any]:
    """The object that holds `row`, as the API takes it."""
    properties = {name: getattr(row, name) for name in BUILT_IN if name != "metadata"}
    if row.page is None:
        del properties["page"]
    exact = json.dumps(dict(row.metadata), ensure_ascii=False, sort_keys=True)
    return {
        "class": collection,
        "id": object_id(row.chunk_id),
        "properties": {**properties, "metadata": exact, **filter_properties(row.metadata)},
        "vector": row.vector.tolist(),
    }


def row_of(found: Mapping[str, Any]) -> Row:
    """The row that an object of the API holds, whatever its properties are by now.

    Where its properties for filters are not those that its `metadata` makes, they are the
    metadata, under their own names.
    """
    held = {k: v for k, v in (found.get("properties") or {}).items() if v is not None}
    filters = {k: v for k, v in held.items() if k.startswith("meta_")}
    try:
        metadata = json.loads(held.get("metadata", ""))
    except ValueError:
        metadata = filters
    if not isinstance(metadata, dict) or not _agree(filter_properties(metadata), filters):
        metadata = filters
    text = {name: str(held.get(name, "")) for name in BUILT_IN if name not in ("metadata", "page")}
    page = held.get("page")
    return Row(
        **text,
        page=None if page is None else int(page),
        metadata=metadata,
        vector=np.array(found.get("vector") or [], dtype=np.float32),
    )


def filter_properties(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as properties to filter on; a list has one for each type of its elements."""
    properties: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(value, (list, tuple)):
            if type(value) in _TYPES:
                properties[_name(_TYPES[type(value)], key)] = value
            continue
        for kind, label in _TYPES.items():
            if picked := [item for item in value if type(item) is kind]:
                properties[_name(f"{label}s", key)] = picked
    return properties


def property_of(name: str) -> dict[str, Any]:
    """The definition of the property `name`, one of BUILT_IN or of metadata."""
    if name in BUILT_IN:
        return {"name": name, **BUILT_IN[name]}
    label = name.split("_")[1]
    kind = label.removesuffix("s")
    definition: dict[str, Any] = {"name": name, "dataType": [kind + "[]" * (label != kind)]}
    return definition | ({"tokenization": "field"} if kind == "text" else {})


def _name(label: str, key: str) -> str:
    slug = _NOT_IN_NAMES.sub("_", key)[:_MAX_NAME]
    if slug != key:
        slug = f"{slug}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return f"meta_{label}_{slug}"


def _agree(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether they are the same once numbers have been doubles, which JSON makes of them there."""
    if wanted.keys() != held.keys():
        return False
    return all(_as_doubles(wanted[name]) == _as_doubles(held[name]) for name in wanted)


def _as_doubles(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_doubles(item) for item in value]
    return float(value) if type(value) is int else value
