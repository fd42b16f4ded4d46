"""What a bundle says of the objects it was made from, so that any machine can go on from it.

`state/objects.arrow` has one row for each document and each document that could not be indexed,
ascending by key, then by document id. `state/counts.npy` says how often each passage has each of
its terms, in the order of `sparse/forward_terms.npy`, in the smallest unsigned type that fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.pipeline.records import Failure, Mark

FOLDER = "state"
OBJECTS = f"{FOLDER}/objects.arrow"
COUNTS = f"{FOLDER}/counts.npy"
_ROWS_AT_ONCE = 8192
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("sidecar_etag", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("hangul", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("lasting", pa.bool_(), nullable=False),
    ]
)


class ObjectState(NamedTuple):
    """One row; `reason` says why there is no such document, and is None where there is."""

    key: str
    etag: str
    sidecar_etag: str
    doc_id: str
    content: str
    hangul: bool
    reason: str | None
    lasting: bool

    @property
    def mark(self) -> Mark:
        return Mark(self.key, self.etag, self.sidecar_etag)

    def failure(self) -> Failure:
        return Failure(self.mark, self.content, self.doc_id, self.reason or "", self.lasting)


def write_state(folder: Path, rows: Iterable[ObjectState], counts: NDArray[np.int32]) -> None:
    """Writes both files below `folder`; `rows` ascend as stated above."""
    (folder / FOLDER).mkdir()
    most = int(counts.max(initial=0))
    np.save(folder / COUNTS, counts.astype(np.min_scalar_type(most)))
    with (
        pa.OSFile(str(folder / OBJECTS), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        columns: list[list[Any]] = [[] for _ in _SCHEMA]
        for row in rows:
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            if len(columns[0]) == _ROWS_AT_ONCE:
                writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
                columns = [[] for _ in _SCHEMA]
        writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))


def read_state(path: Path) -> Iterator[tuple[str, list[ObjectState]]]:
    """Every object's key with its rows, ascending by key, a few in memory at a time.

    Raises pyarrow's ArrowInvalid for what is no such file.
    """
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        rows = (
            ObjectState(*values)
            for batch in batches
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        )
        for key, group in groupby(rows, key=lambda row: row.key):
            yield key, list(group)
