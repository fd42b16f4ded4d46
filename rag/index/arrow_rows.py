"""An Arrow IPC file as rows, a few of which are read at a time, straight from the mapped file.

`column[i].as_py()` makes a scalar object first, and a call for each value still costs more than
all that a search does with a passage beside it. So one compiled loop finds where the values of all
rows lie, in all columns at once, and only strings are then made one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rag.errors import BundleCorrupt, BundleMissing
from rag.index.kernels import (
    BINARY,
    LARGE_STRING,
    LIST,
    NUMBER,
    NUMBER_64,
    STRING,
    locate_values,
)
from rag.types import Int64

Decode = Callable[[Sequence[Sequence[int]], Sequence[int]], list[Any]]
"""What `locate_values` found for one column, as lists, and the batch of each row: the values."""


class _Column(NamedTuple):
    place: int
    decode: Decode


class ArrowRows:
    """The rows of the Arrow IPC file at `path`, memory-mapped; safe to read from several threads.

    It has the columns of `schema` and maybe others after them: of numbers of 32 or 64 bits,
    strings, lists of strings, and binary of a fixed width; not compressed. Raises BundleMissing,
    and BundleCorrupt for a file that is none such.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        if not path.is_file():
            raise BundleMissing(f"{path} is not there; copy or build the bundle again")
        try:
            self._file = pa.memory_map(str(path)).read_buffer()
            file = pa.ipc.open_file(self._file)
            self.batches = [file.get_batch(i) for i in range(file.num_record_batches)]
            for batch in self.batches:
                batch.validate()
        except (pa.ArrowInvalid, OSError) as error:
            raise BundleCorrupt(
                f"{path} cannot be read ({error}); build the bundle again"
            ) from None
        self.schema: pa.Schema = file.schema
        if self.schema.names[: len(schema)] != schema.names or any(
            self.schema.field(f.name).type != f.type for f in schema
        ):
            raise BundleCorrupt(f"{path} has other columns than it should; build the bundle again")
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in self.batches)]
        self._first_rows: Int64 = np.array(self._starts, dtype=np.int64)
        self._bytes = memoryview(self._file)
        self._words = np.frombuffer(self._file, dtype=np.int32, count=len(self._bytes) // 4)
        self._kinds: Int64 = np.array([_kind(field.type) for field in schema], dtype=np.int64)
        self._layout: Int64 = np.empty((len(self.batches), len(schema), 3), dtype=np.int64)
        for number, batch in enumerate(self.batches):
            self._layout[number] = [self._buffers(batch.column(name)) for name in schema.names]
        self._columns = {
            field.name: _Column(place, self._decoder(_kind(field.type), place))
            for place, field in enumerate(schema)
        }

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._starts[-1]

    def columns(self, names: Sequence[str], rows: Sequence[int] | Int64) -> list[list[Any]]:
        """For each of `names` the values of `rows`, in their order: lists as tuples, None for null.

        Raises IndexError for a row outside 0..count-1, BundleCorrupt for text that is none.
        """
        wanted: Int64 = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.count:
            raise IndexError(
                f"rows must lie in 0..{self.count - 1}, got {wanted.min()}..{wanted.max()}"
            )
        columns = [self._columns[name] for name in names]
        places: Int64 = np.array([column.place for column in columns], dtype=np.int64)
        batches = np.empty(len(wanted), dtype=np.int64)
        found = np.empty((len(columns), len(wanted), 2), dtype=np.int64)
        locate_values(
            self._words, self._first_rows, self._layout, self._kinds, places, wanted, batches, found
        )
        of_batch: list[int] = batches.tolist()
        try:
            return [
                column.decode(where, of_batch)
                for column, where in zip(columns, found.tolist(), strict=True)
            ]
        except UnicodeDecodeError as error:
            raise self._broken(error) from None

    def value(self, name: str, row: int) -> Any:
        """The value of one column in one row that is there; BundleCorrupt for text that is none."""
        number = self._batch_of(row)
        try:
            return self.batches[number].column(name)[row - self._starts[number]].as_py()
        except UnicodeDecodeError as error:
            raise self._broken(error) from None

    def slices(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """The values of `names` in rows start..stop-1, cut at the end as slices are."""
        start, stop, _ = slice(start, stop).indices(self.count)
        while start < stop:
            number = self._batch_of(start)
            part = self.batches[number].slice(start - self._starts[number], stop - start)
            yield from zip(*(part.column(name).to_pylist() for name in names), strict=True)
            start += part.num_rows

    def _batch_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _broken(self, error: UnicodeDecodeError) -> BundleCorrupt:
        return BundleCorrupt(f"{self.path} holds broken text ({error}); build again")

    def _buffers(self, column: pa.Array) -> tuple[int, int, int]:
        """Where in the file a batch's column has its validity (a byte; -1: all are valid), its
        numbers or offsets (a word of 32 bits), and its data (a byte).
        """
        buffers = column.buffers()
        valid = self._at(buffers[0]) if column.null_count else -1
        numbers = self._at(buffers[1])
        has_data = _kind(column.type) in (STRING, LARGE_STRING)
        return valid, numbers // 4, self._at(buffers[2]) if has_data else numbers

    def _at(self, buffer: pa.Buffer | None) -> int:
        if buffer is None or buffer.size == 0:
            return 0
        place = int(buffer.address) - int(self._file.address)
        if not 0 <= place <= len(self._bytes) - buffer.size:
            raise BundleCorrupt(f"{self.path} is compressed, or not aligned; build it again")
        return place

    def _decoder(self, kind: int, place: int) -> Decode:
        whole, words = self._bytes, self._words.data

        def strings(found: Sequence[Sequence[int]], _: Sequence[int]) -> list[str]:
            return [str(whole[start:end], "utf-8") for start, end in found]

        def lists(found: Sequence[Sequence[int]], batches: Sequence[int]) -> list[tuple[str, ...]]:
            values: list[tuple[str, ...]] = []
            for (start, end), number in zip(found, batches, strict=True):
                offsets, data = inner[number]
                ends = words[offsets + start : offsets + end + 1].tolist() if start < end else ()
                values.append(
                    tuple(str(whole[data + a : data + b], "utf-8") for a, b in pairwise(ends))
                )
            return values

        def binary(found: Sequence[Sequence[int]], _: Sequence[int]) -> list[bytes]:
            return [bytes(whole[start:end]) for start, end in found]

        def numbers(found: Sequence[Sequence[int]], _: Sequence[int]) -> list[int | None]:
            return [value if valid else None for value, valid in found]

        if kind == LIST:
            buffers = [batch.column(place).buffers() for batch in self.batches]
            inner = [(self._at(found[3]) // 4, self._at(found[4])) for found in buffers]
            return lists
        if kind >= BINARY:
            return binary
        return strings if kind in (STRING, LARGE_STRING) else numbers


def _kind(kind: pa.DataType) -> int:
    """What `locate_values` calls a type."""
    if pa.types.is_string(kind):
        return STRING
    if pa.types.is_large_string(kind):
        return LARGE_STRING
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return LIST
    if pa.types.is_int32(kind):
        return NUMBER
    if pa.types.is_int64(kind):
        return NUMBER_64
    if pa.types.is_fixed_size_binary(kind):
        return BINARY + int(kind.byte_width)
    raise TypeError(f"no reader for {kind}")
