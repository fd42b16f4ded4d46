from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.index.arrow_columns import reader

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COLUMNS = st.one_of(
    st.tuples(st.just(pa.string()), st.lists(TEXT, max_size=6)),
    st.tuples(st.just(pa.large_string()), st.lists(TEXT, max_size=6)),
    st.tuples(st.just(pa.list_(pa.string())), st.lists(st.lists(TEXT, max_size=3), max_size=6)),
    st.tuples(st.just(pa.binary(3)), st.lists(st.binary(min_size=3, max_size=3), max_size=6)),
    st.tuples(
        st.just(pa.int32()),
        st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=6),
    ),
)


@given(made=COLUMNS, cut=st.integers(0, 3))
def test_every_value_is_what_arrow_says(made: tuple[pa.DataType, list[object]], cut: int) -> None:
    kind, values = made
    column = pa.array(values, type=kind).slice(cut)
    read = reader(column)
    found = [read(row) for row in range(len(column))]
    assert [list(v) if isinstance(v, tuple) else v for v in found] == column.to_pylist()


def test_text_that_is_none_is_told() -> None:
    column = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    with pytest.raises(UnicodeDecodeError):
        reader(column)(0)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="double"):
        reader(pa.array([1.0]))
