"""Filtered search over a real bundle returns exactly the admitted rows, on both legs.

Admission is decided here a second time, in plain Python over the chunks themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.index.bundle import Bundle
from rag.types import NO_ROW, Chunk

QUERY = "index 색인 container 8080 SIGTERM 배포"
ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def admits(where: Mapping[str, Any], chunk: Chunk) -> bool:
    return all(_clause(name, condition, chunk) for name, condition in where.items())


def _clause(name: str, condition: Any, chunk: Chunk) -> bool:
    if name == "$and":
        return all(admits(part, chunk) for part in condition)
    if name == "$or":
        return any(admits(part, chunk) for part in condition)
    if name == "$not":
        return not admits(condition, chunk)
    value = _value(name, chunk)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return all(_operator(op, wanted, values) for op, wanted in condition.items())


def _value(name: str, chunk: Chunk) -> Any:
    fields = {
        "lang": chunk.lang,
        "format": chunk.format,
        "doc_id": chunk.doc_id,
        "page": chunk.page,
    }
    return fields[name] if name in fields else chunk.metadata.get(name)


def _operator(op: str, wanted: Any, values: list[Any]) -> bool:
    if op == "$exists":
        return bool(values) is wanted
    if op in ("$ne", "$nin"):
        return not _operator("$eq" if op == "$ne" else "$in", wanted, values)
    if op in ("$eq", "$in"):
        options = wanted if op == "$in" else [wanted]
        return any(_same(v, option) for v in values for option in options)
    return any(
        isinstance(v, str) == isinstance(wanted, str) and ORDER[op](v, wanted) for v in values
    )


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, str) == isinstance(b, str) and bool(a == b)


@pytest.fixture(scope="module")
def bundle(sample_bundle: Path) -> Bundle:
    return Bundle.open(sample_bundle, verify=False)


@pytest.fixture(scope="module")
def chunks(bundle: Bundle) -> list[Chunk]:
    return bundle.chunks(np.arange(bundle.store.rows))


TEXTS = st.sampled_from(
    [
        "ko",
        "en",
        "pdf",
        "md",
        "html",
        "docx",
        "2025-06-01",
        "search-platform",
        "sagemaker/limits.csv",
    ]
)
NUMBERS = st.integers(0, 6)
NAMES = st.sampled_from(
    ["lang", "format", "doc_id", "page", "date", "team", "tags", "pages", "nope"]
)
CONDITIONS = st.one_of(
    st.dictionaries(
        st.sampled_from(["$eq", "$ne", *ORDER]), TEXTS | NUMBERS, min_size=1, max_size=2
    ),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(TEXTS, max_size=3), min_size=1),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
FILTERS = st.recursive(
    st.dictionaries(NAMES, CONDITIONS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(where=FILTERS)
def test_exactly_the_admitted_rows_come_back(
    bundle: Bundle, chunks: list[Chunk], where: dict[str, Any]
) -> None:
    admitted = {row for row, chunk in enumerate(chunks) if admits(where, chunk)}
    mask = bundle.select(where)
    vector = np.zeros((1, bundle.manifest.encoder["dimension"]), dtype=np.float32)
    vector[0, 7] = 1.0
    dense = bundle.search_dense(vector, len(chunks), mask).rows[0]
    assert set(dense[dense != NO_ROW].tolist()) == admitted
    found = bundle.search_sparse([QUERY], len(chunks), None).rows[0]
    filtered = bundle.search_sparse([QUERY], len(chunks), mask).rows[0]
    expected = [row for row in found.tolist() if row in admitted]
    assert filtered[filtered != NO_ROW].tolist() == expected
