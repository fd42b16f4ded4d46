"""The filter language: which rows may answer.

A filter is a JSON object. Each key names a field, and all of them must hold:

    {"lang": "ko", "year": {"$gte": 2020, "$lt": 2024}, "$or": [{"tag": "news"}, {"page": 1}]}

Operators on a field: `$eq $ne $in $nin $gt $gte $lt $lte $exists $not`; a bare value means `$eq`.
Around whole filters: `$and $or $not`. Fields: doc_id, uri, title, lang, format, page, chunk_id;
any other name is a metadata key (dots are just characters), and `metadata.KEY` is always the
metadata key KEY, also where it is named like one of the others.

Meaning, after MongoDB: a missing field matches no `$eq $in $gt $gte $lt $lte`, and does match
`$ne $nin` and `$not`. On a list, a comparison holds if it holds for one element. Integers and
floats compare exactly by value, booleans are not numbers, strings compare by code point (ISO dates
sort), and values of different types match nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import InvalidFilter
from rag.index.manifest import canonical
from rag.types import Scalar

BUILT_IN = ("doc_id", "uri", "title", "lang", "format", "page", "chunk_id")
METADATA_PREFIX = "metadata."
COMPARISONS = ("$eq", "$gt", "$gte", "$lt", "$lte")
OPERATORS = (*COMPARISONS, "$ne", "$in", "$nin", "$exists", "$not")
MAX_DEPTH = 16
MAX_CLAUSES = 256
MAX_VALUES = 10_000
MAX_CHARACTERS = 1_000_000
MAX_BITS = 2048


@dataclass(frozen=True, slots=True)
class Field:
    """A field's name; `metadata` tells a metadata key from a built-in field."""

    name: str
    metadata: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """`operator` is one of COMPARISONS."""

    field: Field
    operator: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """`$in`: equal to one of `values`."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, whatever its value."""

    field: Field


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; true without parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Node


Node = Compare | OneOf | Exists | All | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Filter:
    """A checked filter: its tree, and its canonical JSON (equal filters share it)."""

    root: Node
    key: bytes


def parse(where: Mapping[str, Any]) -> Filter:
    """Checks `where` and returns its tree.

    Raises InvalidFilter, naming the path to the bad piece (`filter.$and[1].year.$gt: …`), also
    for filters larger than MAX_DEPTH, MAX_CLAUSES, MAX_VALUES or MAX_CHARACTERS.
    """
    root = _Parser().filter(where, "filter", 1)
    return Filter(root, canonical(where))


class _Parser:
    """Counts what it has seen, so that a hostile filter is refused before it costs anything."""

    def __init__(self) -> None:
        self._clauses = 0
        self._values = 0
        self._characters = 0

    def filter(self, where: Any, path: str, depth: int) -> Node:
        if not isinstance(where, Mapping):
            raise InvalidFilter(f"{path}: expected an object, got {_kind(where)}")
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"{path}: nested deeper than {MAX_DEPTH} levels")
        return _all([self._member(key, v, f"{path}.{key}", depth) for key, v in where.items()])

    def _member(self, key: Any, value: Any, path: str, depth: int) -> Node:
        self._count_clause(path)
        if not isinstance(key, str):
            raise InvalidFilter(f"{path}: a field's name must be a string")
        self._count_text(key, path)
        if key in ("$and", "$or"):
            if not isinstance(value, Sequence) or isinstance(value, str) or not value:
                raise InvalidFilter(f"{path}: expected a list of at least one filter")
            parts = [self.filter(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
            return _all(parts) if key == "$and" else AnyOf(tuple(parts))
        if key == "$not":
            return Not(self.filter(value, path, depth + 1))
        if key.startswith("$"):
            raise InvalidFilter(f"{path}: unknown operator; use $and, $or, $not or a field's name")
        return self._condition(_field(key, path), value, path, depth)

    def _condition(self, field: Field, value: Any, path: str, depth: int) -> Node:
        if not isinstance(value, Mapping):
            return Compare(field, "$eq", self._scalar(value, path))
        if not value:
            raise InvalidFilter(f"{path}: expected an operator ({', '.join(OPERATORS)})")
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"{path}: nested deeper than {MAX_DEPTH} levels")
        return _all([self._test(field, op, v, f"{path}.{op}", depth) for op, v in value.items()])

    def _test(self, field: Field, operator: Any, value: Any, path: str, depth: int) -> Node:
        self._count_clause(path)
        match operator:
            case "$eq" | "$gt" | "$gte" | "$lt" | "$lte":
                return Compare(field, operator, self._scalar(value, path))
            case "$ne":
                return Not(Compare(field, "$eq", self._scalar(value, path)))
            case "$in" | "$nin":
                node = OneOf(field, self._scalars(value, path))
                return node if operator == "$in" else Not(node)
            case "$exists":
                if not isinstance(value, bool):
                    raise InvalidFilter(f"{path}: expected true or false, got {_kind(value)}")
                return Exists(field) if value else Not(Exists(field))
            case "$not":
                if not isinstance(value, Mapping):
                    raise InvalidFilter(f"{path}: expected an operator, got {_kind(value)}")
                return Not(self._condition(field, value, path, depth + 1))
        raise InvalidFilter(f"{path}: unknown operator; use one of {', '.join(OPERATORS)}")

    def _scalars(self, values: Any, path: str) -> tuple[Scalar, ...]:
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise InvalidFilter(f"{path}: expected a list, got {_kind(values)}")
        return tuple(self._scalar(value, f"{path}[{i}]") for i, value in enumerate(values))

    def _scalar(self, value: Any, path: str) -> Scalar:
        self._values += 1
        if self._values > MAX_VALUES:
            raise InvalidFilter(f"{path}: more than {MAX_VALUES} values")
        if isinstance(value, str):
            self._count_text(value, path)
            return value
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise InvalidFilter(f"{path}: an integer of more than {MAX_BITS} bits")
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        if value is None:
            raise InvalidFilter(
                f"{path}: null is no value; ask with $exists whether a field is there"
            )
        if isinstance(value, Sequence):
            raise InvalidFilter(f"{path}: expected one value, got a list; use $in")
        raise InvalidFilter(f"{path}: expected a string, a finite number, true or false")

    def _count_clause(self, path: str) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise InvalidFilter(f"{_short(path)}: more than {MAX_CLAUSES} clauses")

    def _count_text(self, text: str, path: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise InvalidFilter(f"{_short(path)}: more than {MAX_CHARACTERS} characters")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise InvalidFilter(f"{_short(path)!r}: not valid Unicode")


def _field(name: str, path: str) -> Field:
    if name in BUILT_IN:
        return Field(name, metadata=False)
    if name.startswith(METADATA_PREFIX):
        return Field(name.removeprefix(METADATA_PREFIX), metadata=True)
    return Field(name, metadata=True)


def _all(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _short(path: str) -> str:
    return path if len(path) <= 200 else path[:200] + "…"
