"""A few values out of Arrow record batches, straight from their buffers.

`column[i].as_py()` makes a scalar object first, which costs more than everything else that a
search does with a passage. Values are copied; the buffers belong to the batch, which is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa


class Reader(Protocol):
    """The values of one column of one batch: `reader(rows)` are those of `rows`, in that order,
    None where one is null.

    Raises UnicodeDecodeError for a string that is none.
    """

    def __call__(self, rows: Iterable[int], /) -> list[Any]: ...


def reader(column: pa.Array) -> Reader:
    """A reader of numbers, strings, lists of strings or binary of fixed width."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _Strings(column)
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return _Lists(column)
    if pa.types.is_fixed_size_binary(kind):
        return _Binary(column)
    if pa.types.is_integer(kind):
        return _Numbers(column)
    raise TypeError(f"no reader for {kind}")


class _Strings:
    def __init__(self, column: pa.Array) -> None:
        self._offsets = _offsets(column, wide=pa.types.is_large_string(column.type))
        data = column.buffers()[2]
        self._data = memoryview(b"" if data is None else data)

    def __call__(self, rows: Iterable[int]) -> list[str]:
        data, ends = self._data, self._offsets
        return [str(data[ends[row] : ends[row + 1]], "utf-8") for row in rows]


class _Lists:
    def __init__(self, column: pa.Array) -> None:
        self._offsets = _offsets(column)
        self._values = _Strings(column.values)

    def __call__(self, rows: Iterable[int]) -> list[tuple[str, ...]]:
        values, ends = self._values, self._offsets
        return [tuple(values(range(ends[row], ends[row + 1]))) for row in rows]


class _Binary:
    def __init__(self, column: pa.Array) -> None:
        self._width = column.type.byte_width
        self._data = memoryview(column.buffers()[1])[column.offset * self._width :]

    def __call__(self, rows: Iterable[int]) -> list[bytes]:
        data, width = self._data, self._width
        return [bytes(data[row * width : (row + 1) * width]) for row in rows]


class _Numbers:
    def __init__(self, column: pa.Array) -> None:
        self._valid: bytes | None = None
        if column.null_count:
            self._valid = column.is_valid().to_numpy(zero_copy_only=False).tobytes()
            column = column.fill_null(0)
        self._values = np.ascontiguousarray(column.to_numpy()).data

    def __call__(self, rows: Iterable[int]) -> list[int | None]:
        values, valid = self._values, self._valid
        if valid is None:
            return [values[row] for row in rows]
        return [values[row] if valid[row] else None for row in rows]


def _offsets(column: pa.Array, *, wide: bool = False) -> memoryview:
    """Where the values of `column` begin, and then the last one's end."""
    buffer = column.buffers()[1]
    size = 8 if wide else 4
    whole = memoryview(bytes(size) if buffer is None or buffer.size == 0 else buffer)
    ends = whole[: len(whole) // size * size].cast("q" if wide else "i")
    return ends[column.offset : column.offset + len(column) + 1]
