"""Single values out of Arrow record batches, straight from their buffers.

`column[i].as_py()` makes a scalar object first, which costs more than everything else that a
search does with a passage. Values are copied; the buffers belong to the batch, which is kept.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa


class Reader(Protocol):
    """The values of one column of one batch: `reader(i)` is row i, None where it is null.

    Raises UnicodeDecodeError for a string that is none.
    """

    def __call__(self, row: int, /) -> Any: ...


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

    def __call__(self, row: int) -> str:
        return str(self._data[self._offsets[row] : self._offsets[row + 1]], "utf-8")


class _Lists:
    def __init__(self, column: pa.Array) -> None:
        self._offsets = _offsets(column)
        self._values = _Strings(column.values)

    def __call__(self, row: int) -> tuple[str, ...]:
        return tuple(map(self._values, range(self._offsets[row], self._offsets[row + 1])))


class _Binary:
    def __init__(self, column: pa.Array) -> None:
        self._width = column.type.byte_width
        self._data = memoryview(column.buffers()[1])[column.offset * self._width :]

    def __call__(self, row: int) -> bytes:
        return bytes(self._data[row * self._width : (row + 1) * self._width])


class _Numbers:
    def __init__(self, column: pa.Array) -> None:
        self._valid: bytes | None = None
        if column.null_count:
            self._valid = column.is_valid().to_numpy(zero_copy_only=False).tobytes()
            column = column.fill_null(0)
        self._values = np.ascontiguousarray(column.to_numpy()).data

    def __call__(self, row: int) -> int | None:
        if self._valid is not None and not self._valid[row]:
            return None
        return int(self._values[row])


def _offsets(column: pa.Array, *, wide: bool = False) -> memoryview:
    """Where the values of `column` begin, and then the last one's end."""
    buffer = column.buffers()[1]
    size = 8 if wide else 4
    whole = memoryview(bytes(size) if buffer is None or buffer.size == 0 else buffer)
    ends = whole[: len(whole) // size * size].cast("q" if wide else "i")
    return ends[column.offset : column.offset + len(column) + 1]
