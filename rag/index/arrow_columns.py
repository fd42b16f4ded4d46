"""Single values out of Arrow record batches, straight from their buffers.

`column[i].as_py()` makes a scalar object first, which costs more than everything else that a
search does with a passage. Values are copied; the buffers belong to the batch, which is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

Reader = Callable[[int], Any]
"""The value in one row of one column of one batch, None where it is null. Raises UnicodeDecodeError
for a string that is none. A function, not an object: a passage takes a call for each column.
"""


def reader(column: pa.Array) -> Reader:
    """A reader of numbers, strings, lists of strings (as tuples) or binary of fixed width.

    Rows are those of `column`, from 0; they are not checked.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _strings(column)
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return _lists(column)
    if pa.types.is_fixed_size_binary(kind):
        return _binary(column)
    if pa.types.is_integer(kind):
        return _numbers(column)
    raise TypeError(f"no reader for {kind}")


def _strings(column: pa.Array) -> Reader:
    ends = _offsets(column, wide=pa.types.is_large_string(column.type))
    buffer = column.buffers()[2]
    data = memoryview(b"" if buffer is None else buffer)

    def read(row: int) -> str:
        return str(data[ends[row] : ends[row + 1]], "utf-8")

    return read


def _lists(column: pa.Array) -> Reader:
    ends, value = _offsets(column), _strings(column.values)

    def read(row: int) -> tuple[str, ...]:
        start, end = ends[row], ends[row + 1]
        return tuple(map(value, range(start, end))) if start < end else ()

    return read


def _binary(column: pa.Array) -> Reader:
    width = column.type.byte_width
    data = memoryview(column.buffers()[1])[column.offset * width :]

    def read(row: int) -> bytes:
        return bytes(data[row * width : (row + 1) * width])

    return read


def _numbers(column: pa.Array) -> Reader:
    if not column.null_count:
        every: Reader = np.ascontiguousarray(column.to_numpy()).data.__getitem__
        return every
    valid = column.is_valid().to_numpy(zero_copy_only=False).tobytes()
    values = np.ascontiguousarray(column.fill_null(0).to_numpy()).data

    def read(row: int) -> int | None:
        return values[row] if valid[row] else None

    return read


def _offsets(column: pa.Array, *, wide: bool = False) -> memoryview:
    """Where the values of `column` begin, and then the last one's end."""
    buffer = column.buffers()[1]
    size = 8 if wide else 4
    whole = memoryview(bytes(size) if buffer is None or buffer.size == 0 else buffer)
    ends = whole[: len(whole) // size * size].cast("q" if wide else "i")
    return ends[column.offset : column.offset + len(column) + 1]
