from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import BundleCorrupt
from rag.index.arrow_rows import ArrowRows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(3)),
        pa.field("small", pa.int32()),
        pa.field("large", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("long_text", pa.large_string()),
        pa.field("list", pa.list_(pa.string())),
    ]
)
ROW = st.tuples(
    st.binary(min_size=3, max_size=3),
    st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    TEXT,
    TEXT,
    st.lists(TEXT, max_size=3).map(tuple),
)
Rows = list[tuple[Any, ...]]


def write(path: Path, batches: list[Rows], **options: Any) -> ArrowRows:
    how = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA, options=how) as writer:
        for rows in batches:
            columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
            arrays = [pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    return ArrowRows(path, SCHEMA)


@given(batches=st.lists(st.lists(ROW, max_size=12), max_size=4), chosen=st.data())
def test_every_value_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Rows], chosen: st.DataObject
) -> None:
    rows = [row for batch in batches for row in batch]
    file = write(tmp_path_factory.mktemp("rows") / "a.arrow", batches)
    assert file.count == len(rows)
    assert list(zip(*file.columns(SCHEMA.names, range(len(rows))), strict=True)) == rows
    if rows:
        some = chosen.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
        names = chosen.draw(st.permutations(SCHEMA.names))[:3]
        places = [SCHEMA.names.index(name) for name in names]
        assert file.columns(names, some) == [[rows[row][c] for row in some] for c in places]
        assert file.value("text", len(rows) - 1) == rows[-1][3]
    lists = [(row[3], list(row[5])) for row in rows]
    assert list(file.slices(("text", "list"), 0, len(rows))) == lists


def one_row(text: str = "text") -> Rows:
    return [(b"abc", 1, 2, text, "b", ("c",))]


def test_a_row_that_is_not_there(tmp_path: Path) -> None:
    file = write(tmp_path / "a.arrow", [one_row(), one_row()])
    for row in (-1, 2):
        with pytest.raises(IndexError, match=r"must lie in 0\.\.1"):
            file.columns(["text"], [0, row])


def test_text_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write(path, [one_row("damaged")])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"damaged", b"dam\xff\xfeed"))
    file = ArrowRows(path, SCHEMA)
    with pytest.raises(BundleCorrupt, match=r"a\.arrow holds broken text"):
        file.columns(["id", "text"], [0])
    assert file.columns(["id"], [0]) == [[b"abc"]]


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    rows = [one_row("text " * 1000)[0]] * 100
    with pytest.raises(BundleCorrupt, match=r"a\.arrow is compressed"):
        write(tmp_path / "a.arrow", [rows], compression="lz4")


def test_other_kinds_of_columns_are_refused(tmp_path: Path) -> None:
    table, path = pa.table({"a": [1.0]}), tmp_path / "a"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(TypeError, match="double"):
        ArrowRows(path, table.schema)


@pytest.mark.parametrize("value", [0, 1 << 40])
def test_offsets_that_are_wrong_read_nothing_else(tmp_path: Path, value: int) -> None:
    """A damaged offset gives other text or none, but never bytes outside of the file."""
    path = tmp_path / "a.arrow"
    write(path, [one_row("here")])
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    offsets = batch.column("long_text").buffers()[1].to_pybytes()[:16]
    assert offsets == struct.pack("<qq", 0, 1)
    data = path.read_bytes()
    at = data.index(offsets)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("<qq", 0, value), at)
    try:
        found = ArrowRows(path, SCHEMA).columns(["long_text"], [0])
    except BundleCorrupt:
        return
    assert len(found[0][0].encode()) < len(data)
