"""Filters to row masks, vectorised over Arrow columns.

A condition on a document's field is decided once per document and broadcast to its chunks only
where it meets a condition on chunks (page, chunk_id) or at the end.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag.index.chunk_files import FIELD_TYPES, field_name
from rag.index.filters import All, AnyOf, Compare, Exists, Field, Node, Not, OneOf
from rag.types import RowMask, Scalar

_ARROW = {
    "$eq": pc.equal,
    "$gt": pc.greater,
    "$gte": pc.greater_equal,
    "$lt": pc.less,
    "$lte": pc.less_equal,
}
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Columns(Protocol):
    """What a filter is evaluated against: `documents` has one row per document, `doc_of_row`
    (int32) the document of each chunk, `pages` the page of each chunk, and `ids` the chunk ids
    as hex, ascending.
    """

    @property
    def documents(self) -> pa.Table: ...
    @property
    def doc_of_row(self) -> NDArray[np.int32]: ...
    @property
    def pages(self) -> pa.ChunkedArray: ...
    @property
    def ids(self) -> Sequence[str]: ...


def evaluate(node: Node, columns: Columns) -> RowMask:
    """The rows where the filter holds: bool (rows,)."""
    mask, per_row = _Evaluator(columns).node(node)
    return mask if per_row else mask[columns.doc_of_row]


class _Evaluator:
    """Every method returns (mask, whether it is per chunk row rather than per document)."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def node(self, node: Node) -> tuple[RowMask, bool]:
        match node:
            case Not(part):
                mask, per_row = self.node(part)
                return ~mask, per_row
            case All(parts):
                return self._combine(parts, np.logical_and, start=True)
            case AnyOf(parts):
                return self._combine(parts, np.logical_or, start=False)
        if not node.field.metadata and node.field.name == "chunk_id":
            return self._chunk_ids(node), True
        if not node.field.metadata and node.field.name == "page":
            # Widened, so that a number no page can have is compared and not refused.
            return _match(self._columns.pages.cast(pa.int64()), "i", node), True
        return self._document_field(node.field, node), False

    def _combine(
        self, parts: Sequence[Node], operation: np.ufunc, *, start: bool
    ) -> tuple[RowMask, bool]:
        of_documents: RowMask = np.full(self._columns.documents.num_rows, start)
        of_rows: RowMask | None = None
        for mask, per_row in map(self.node, parts):
            if not per_row:
                of_documents = operation(of_documents, mask)
            else:
                of_rows = mask if of_rows is None else operation(of_rows, mask)
        if of_rows is None:
            return of_documents, False
        return operation(of_rows, of_documents[self._columns.doc_of_row]), True

    def _document_field(self, field: Field, node: Compare | OneOf | Exists) -> RowMask:
        documents = self._columns.documents
        if not field.metadata:
            return _match(documents.column(field.name), "s", node)
        found = np.zeros(documents.num_rows, dtype=np.bool_)
        for kind in FIELD_TYPES:
            for name, listed in ((kind, False), ("l" + kind, True)):
                column = field_name(name, field.name)
                if column in documents.schema.names:
                    values = documents.column(column)
                    found |= (_match_lists if listed else _match)(values, kind, node)
        return found

    def _chunk_ids(self, node: Compare | OneOf | Exists) -> RowMask:
        ids = self._columns.ids
        mask = np.zeros(len(ids), dtype=np.bool_)
        if isinstance(node, Exists):
            return ~mask
        values = node.values if isinstance(node, OneOf) else (node.value,)
        operator = node.operator if isinstance(node, Compare) else "$eq"
        for value in values:
            if isinstance(value, str):
                left, right = bisect_left(ids, value), bisect_right(ids, value)
                spans = {"$eq": (left, right), "$gt": (right, None), "$gte": (left, None)}
                spans |= {"$lt": (0, left), "$lte": (0, right)}
                mask[slice(*spans[operator])] = True
        return mask


def _match_lists(column: pa.ChunkedArray, kind: str, node: Compare | OneOf | Exists) -> RowMask:
    """As `_match` for lists: True where it holds for one element."""
    masks = []
    for chunk in column.chunks:
        if isinstance(node, Exists):
            masks.append(_to_numpy(chunk.is_valid()))
            continue
        mask = np.zeros(len(chunk), dtype=np.bool_)
        holds = _match(pa.chunked_array([chunk.flatten()]), kind, node)
        mask[pc.list_parent_indices(chunk).to_numpy()[holds]] = True
        masks.append(mask)
    return np.concatenate(masks) if masks else np.zeros(0, dtype=np.bool_)


def _match(column: pa.ChunkedArray, kind: str, node: Compare | OneOf | Exists) -> RowMask:
    """Where the column's value satisfies the node: bool (len(column),); nulls never do."""
    if isinstance(node, Exists):
        return _to_numpy(column.is_valid())
    if isinstance(node, OneOf):
        wanted = _exact_values(kind, node.values)
        return _to_numpy(pc.is_in(column, value_set=pa.array(wanted, type=column.type)))
    test = _exact_test(kind, node.operator, node.value)
    if test is None:
        return np.zeros(len(column), dtype=np.bool_)
    operator, value = test
    if isinstance(operator, bool):
        return _to_numpy(column.is_valid()) & operator
    return _to_numpy(_ARROW[operator](column, pa.scalar(value, type=column.type)))


def _exact_values(kind: str, values: Iterable[Scalar]) -> list[Scalar]:
    """Those of `values` that a column of `kind` can hold, as that kind."""
    tests = (_exact_test(kind, "$eq", value) for value in values)
    return [test[1] for test in tests if test is not None and test[0] == "$eq"]


def _exact_test(kind: str, operator: str, value: Scalar) -> tuple[str | bool, Scalar] | None:
    """A comparison within a column's own type that means the same; None if nothing can match.

    An operator of True or False means that all or no values match. Integers and floats compare as
    the numbers that they are: 2**53 + 1 is above the float 2.0**53.
    """
    if kind in ("s", "b"):
        same = type(value) is (str if kind == "s" else bool)
        return (operator, value) if same else None
    if isinstance(value, (bool, str)):
        return None
    return _integer_test(operator, value) if kind == "i" else _float_test(operator, value)


def _integer_test(operator: str, value: int | float) -> tuple[str | bool, Scalar] | None:
    whole = math.floor(value)
    if whole != value:  # x > 2.5 is x > 2 and x >= 2.5 is x > 2 for integers
        if operator == "$eq":
            return None
        operator = "$gt" if operator in ("$gt", "$gte") else "$lte"
    if whole > INT64_MAX:
        return operator in ("$lt", "$lte"), 0
    if whole < INT64_MIN:
        return operator in ("$gt", "$gte"), 0
    return operator, whole


def _float_test(operator: str, value: int | float) -> tuple[str | bool, Scalar] | None:
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    if near == value:
        return operator, near
    if operator == "$eq":
        return None
    upper = near > value  # the float nearest to the integer lies above it
    if operator in ("$gt", "$gte"):
        return ("$gte" if upper else "$gt"), near
    return ("$lt" if upper else "$lte"), near


def _to_numpy(values: pa.Array | pa.ChunkedArray) -> RowMask:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    mask: RowMask = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask
