"""Single values out of Arrow record batches, straight from their buffers.

`column[i].as_py()` makes a scalar object first, which costs more than everything else that a
search does with a passage. Values are copied; the buffers belong to the batch, which is kept.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


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
        wide = pa.types.is_large_string(column.type)
        _, offsets, data = column.buffers()
        self._offsets = _array(offsets, np.int64 if wide else np.int32, column)
        self._data = memoryview(b"" if data is None else data)

    def __call__(self, row: int) -> str:
        start, end = self._offsets[row : row + 2].tolist()
        return str(self._data[start:end], "utf-8")


class _Lists:
    def __init__(self, column: pa.Array) -> None:
        self._offsets = _array(column.buffers()[1], np.int32, column)
        self._values = _Strings(column.values)

    def __call__(self, row: int) -> tuple[str, ...]:
        start, end = self._offsets[row : row + 2].tolist()
        return tuple(map(self._values, range(start, end)))


class _Binary:
    def __init__(self, column: pa.Array) -> None:
        self._width = column.type.byte_width
        self._data = memoryview(column.buffers()[1])[column.offset * self._width :]

    def __call__(self, row: int) -> bytes:
        return bytes(self._data[row * self._width : (row + 1) * self._width])


class _Numbers:
    def __init__(self, column: pa.Array) -> None:
        self._valid: NDArray[np.bool_] | None = None
        if column.null_count:
            self._valid = column.is_valid().to_numpy(zero_copy_only=False)
            column = column.fill_null(0)
        self._values: NDArray[Any] = column.to_numpy()

    def __call__(self, row: int) -> int | None:
        if self._valid is not None and not self._valid[row]:
            return None
        return int(self._values[row])


def _array(buffer: Any, dtype: Any, column: pa.Array) -> NDArray[Any]:
    """The offsets of `column`, one more than it has rows."""
    if buffer is None or buffer.size == 0:
        return np.zeros(1, dtype=dtype)
    whole = np.frombuffer(buffer, dtype=dtype)
    return whole[column.offset : column.offset + len(column) + 1]
