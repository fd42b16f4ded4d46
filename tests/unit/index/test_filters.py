from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import InvalidFilter
from rag.index.chunks import ChunkStore, DocumentRecord, write_chunks
from rag.index.filters import parse
from rag.types import Chunk

# ---- a plain evaluator, written from the documented meaning alone -------------------------------

BUILT_IN = ("doc_id", "uri", "title", "lang", "format", "page", "chunk_id")
ORDER = {
    "$eq": lambda a, b: a == b,
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "string"


def lookup(name: str, chunk: Chunk) -> Any:
    """The field's value, or None where it is missing."""
    if name == "chunk_id":
        return chunk.chunk_id
    if name in BUILT_IN:
        return getattr(chunk, name)
    return chunk.metadata.get(name.removeprefix("metadata."))


def holds(where: Mapping[str, Any], chunk: Chunk) -> bool:
    for key, value in where.items():
        if key == "$and":
            ok = all(holds(part, chunk) for part in value)
        elif key == "$or":
            ok = any(holds(part, chunk) for part in value)
        elif key == "$not":
            ok = not holds(value, chunk)
        else:
            condition = value if isinstance(value, dict) else {"$eq": value}
            ok = condition_holds(condition, lookup(key, chunk))
        if not ok:
            return False
    return True


def condition_holds(condition: Mapping[str, Any], found: Any) -> bool:
    elements = list(found) if isinstance(found, list | tuple) else [found]
    if found is None:
        elements = []

    def some(operator: str, wanted: Any) -> bool:
        return any(kind(e) == kind(wanted) and ORDER[operator](e, wanted) for e in elements)

    for operator, value in condition.items():
        match operator:
            case "$exists":
                ok = (found is not None) == value
            case "$ne":
                ok = not some("$eq", value)
            case "$in":
                ok = any(some("$eq", v) for v in value)
            case "$nin":
                ok = not any(some("$eq", v) for v in value)
            case "$not":
                ok = not condition_holds(value, found)
            case _:
                ok = some(operator, value)
        if not ok:
            return False
    return True


# ---- random documents and filters ----------------------------------------------------------------

NUMBERS: list[Any] = [0, -1, 1, 2, 2.5, 2.0, -0.0, 2**53, 2**53 + 1, float(2**53)]
LIMITS = [2**63 - 1, -(2**63), 1e300]
STRINGS = ["", "a", "b", "한국", "한국어", "2024-03-01", "😀", "\uffff"]
SCALARS = st.sampled_from([*NUMBERS, *LIMITS, True, False, *STRINGS])
KEYS = ["year", "tags", "a.b", "lang", "page", "연도", "$x"]
METADATA = st.dictionaries(
    st.sampled_from(KEYS), st.one_of(SCALARS, st.lists(SCALARS, max_size=4)), max_size=4
)
QUERY_SCALARS = st.one_of(SCALARS, st.sampled_from([2**70, -(2**70), 10**400, 0.1, "0", "f" * 32]))
FIELDS = st.sampled_from(
    [
        "year",
        "tags",
        "a.b",
        "연도",
        "metadata.lang",
        "metadata.page",
        "metadata.$x",
        *BUILT_IN,
        "no",
    ]
)
CONDITIONS = st.recursive(
    st.one_of(
        st.dictionaries(st.sampled_from([*ORDER, "$ne"]), QUERY_SCALARS, min_size=1, max_size=2),
        st.dictionaries(
            st.sampled_from(["$in", "$nin"]), st.lists(QUERY_SCALARS, max_size=4), min_size=1
        ),
        st.builds(lambda flag: {"$exists": flag}, st.booleans()),
    ),
    lambda inner: st.builds(lambda c: {"$not": c}, inner),
    max_leaves=2,
)
FILTERS = st.recursive(
    st.dictionaries(FIELDS, st.one_of(QUERY_SCALARS, CONDITIONS), max_size=3),
    lambda inner: st.one_of(
        st.builds(lambda f: {"$not": f}, inner),
        st.builds(
            lambda op, fs, more: {op: fs, **more},
            st.sampled_from(["$and", "$or"]),
            st.lists(inner, min_size=1, max_size=3),
            st.dictionaries(FIELDS, QUERY_SCALARS, max_size=1),
        ),
    ),
    max_leaves=5,
)


@st.composite
def corpora(draw: st.DrawFn) -> list[tuple[DocumentRecord, int]]:
    """Documents with how many chunks each has."""
    metadata = draw(st.lists(METADATA, max_size=6))
    langs = st.sampled_from(["ko", "en"])
    return [
        (
            DocumentRecord(f"d{i}", f"u{i % 2}", "제목", draw(langs), "md", m, "0" * 64, 1),
            draw(st.integers(0, 3)),
        )
        for i, m in enumerate(metadata)
    ]


def store_of(
    folder: Path, corpus: list[tuple[DocumentRecord, int]]
) -> tuple[ChunkStore, list[Chunk]]:
    chunks = [
        Chunk(
            r.doc_id,
            r.uri,
            r.title,
            f"{i}",
            i,
            i + 1,
            page=i or None,
            lang=r.lang,
            format=r.format,
            metadata=r.metadata,
        )
        for r, count in corpus
        for i in range(count)
    ]
    chunks.sort(key=lambda c: c.chunk_id)
    write_chunks(folder, (r for r, _ in corpus), ((c.chunk_id, c) for c in chunks))
    return ChunkStore.open(folder), chunks


@given(corpora(), st.lists(FILTERS, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_masks_equal_a_plain_evaluation(
    tmp_path_factory: pytest.TempPathFactory, corpus: Any, wheres: list[dict[str, Any]]
) -> None:
    store, chunks = store_of(tmp_path_factory.mktemp("filters"), corpus)
    for where in wheres:
        assert store.select(where).tolist() == [holds(where, c) for c in chunks], json.dumps(where)


@given(corpora(), FILTERS, st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_chunk_ids_compare_as_strings(
    tmp_path_factory: pytest.TempPathFactory, corpus: Any, where: dict[str, Any], cut: int
) -> None:
    store, chunks = store_of(tmp_path_factory.mktemp("ids"), corpus)
    for chunk in chunks[:2]:
        for operator in (*ORDER, "$ne"):
            test = {"chunk_id": {operator: chunk.chunk_id[: 32 - cut]}, "$or": [where, {}]}
            assert store.select(test).tolist() == [holds(test, c) for c in chunks]


# ---- cases worth a name --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChunkStore:
    metadata: list[dict[str, Any]] = [
        {"year": 2023, "tags": ["뉴스", "경제"]},
        {"year": 2024.5, "tags": []},
        {"year": "2024", "lang": "fr"},
        {},
    ]
    records = [DocumentRecord(f"d{i}", "u", "t", "ko", "md", m) for i, m in enumerate(metadata)]
    folder = tmp_path_factory.mktemp("named")
    return store_of(folder, [(record, 1) for record in records])[0]


@pytest.mark.parametrize(
    ("where", "documents"),
    [
        ({}, "0123"),
        ({"lang": "ko"}, "0123"),
        ({"metadata.lang": "fr"}, "2"),
        ({"year": {"$gt": 2000}}, "01"),
        ({"year": {"$gte": 2023, "$lt": 2024}}, "0"),
        ({"year": {"$ne": 2023}}, "123"),
        ({"year": {"$nin": [2023, "2024"]}}, "13"),
        ({"year": {"$not": {"$gt": 0}}}, "23"),
        ({"year": True}, ""),
        ({"tags": "경제"}, "0"),
        ({"tags": {"$exists": True}}, "01"),
        ({"tags": {"$exists": False}}, "23"),
        ({"tags": {"$in": []}}, ""),
        ({"tags": {"$nin": []}}, "0123"),
        ({"$or": [{"year": 2023}, {"year": "2024"}], "doc_id": {"$gt": "d0"}}, "2"),
        ({"page": {"$exists": False}}, "0123"),
        ({"$not": {"page": 1}}, "0123"),
        ({"page": {"$lt": 2**53}}, ""),
        ({"page": {"$ne": -(2**40)}}, "0123"),
        ({"page": {"$in": [2**31, 1]}}, ""),
    ],
)
def test_meaning(store: ChunkStore, where: dict[str, Any], documents: str) -> None:
    rows = np.flatnonzero(store.select(where))
    assert "".join(sorted(c.doc_id[1:] for c in store.chunks(rows))) == documents


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"$and": [{}, {"year": {"$gt": None}}]}, "filter.$and[1].year.$gt: null"),
        ({"year": {"$foo": 1}}, "filter.year.$foo: unknown operator"),
        ({"$nor": []}, "filter.$nor: unknown operator"),
        ({"year": {}}, "filter.year: expected an operator"),
        ({"year": [1]}, "filter.year: expected one value, got a list; use $in"),
        ({"year": {"$in": 1}}, "filter.year.$in: expected a list"),
        ({"year": {"$in": "abc"}}, "filter.year.$in: expected a list, got a string"),
        ({"year": {"$in": [1, {}]}}, "filter.year.$in[1]: expected a string"),
        ({"year": {"$exists": 1}}, "filter.year.$exists: expected true or false"),
        ({"year": {"$not": 1}}, "filter.year.$not: expected an operator"),
        ({"$or": []}, "filter.$or: expected a list of at least one filter"),
        ({"$or": {}}, "filter.$or: expected a list"),
        ({"$and": ["x"]}, "filter.$and[0]: expected an object, got a string"),
        ({"year": float("nan")}, "filter.year: expected a string, a finite number"),
        ({"year": "\ud800"}, "not valid Unicode"),
        ({"\ud800": 1}, "not valid Unicode"),
        ({3: 1}, "a field's name must be a string"),
        ("lang", "filter: expected an object, got a string"),
    ],
)
def test_bad_filters_are_refused_by_path(where: Any, message: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(where)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def nested(depth: int, wrap: Any, core: Any) -> Any:
    where = core
    for _ in range(depth):
        where = wrap(where)
    return where


@pytest.mark.parametrize(
    "where",
    [
        nested(5000, lambda inner: {"$not": inner}, {"year": 1}),
        nested(5000, lambda inner: {"$and": [inner]}, {"year": 1}),
        {"year": nested(5000, lambda inner: {"$not": inner}, {"$gt": 1})},
        {"$or": [{"year": 1}] * 5000},
        {"year": {"$in": list(range(20_000))}},
        {f"k{i}": 1 for i in range(5000)},
        {"title": "가" * 2_000_000},
        {"year": 10**5000},
    ],
    ids=["not", "and", "field-not", "or", "in", "keys", "text", "digits"],
)
def test_hostile_filters_are_refused(where: Any) -> None:
    with pytest.raises(InvalidFilter):
        parse(where)


def test_equal_filters_share_a_key_and_a_mask(store: ChunkStore) -> None:
    first = store.select({"year": 2023, "lang": "ko"})
    assert store.select({"lang": "ko", "year": 2023}) is first
    assert not first.flags.writeable
