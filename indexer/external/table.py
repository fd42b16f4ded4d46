"""What every external database looks like from here: one row for each passage of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rag.types import Float32, Metadata


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One passage as a database holds it: what is shown of it, and what filters ask for.

    `chunk_id` is 32 hex digits; `text` is the passage alone, without its context; `page` counts
    from 1, or is None; `lang` and `format` are those of the document, as `metadata` is. `vector`
    is float32 (d,); of length 0 where the database holds none.
    """

    chunk_id: str
    doc_id: str
    title: str
    text: str
    uri: str
    page: int | None
    lang: str
    format: str
    metadata: Metadata
    vector: Float32


class Table(Protocol):
    """The rows of one table (Weaviate: collection) by chunk id; `name` is what messages call it.

    What loses its connection, is throttled or fails inside the database is tried again a few
    times, and then raises DatabaseUnavailable; what the database refuses raises DatabaseError. A
    table that does not exist is empty, and is made by the first `write`.
    """

    name: str

    def ids(self) -> Iterator[str]:
        """The id of every row, ascending, read in pages. Rows may be written and deleted behind
        the last id that was given, and none is skipped or given twice for it.
        """
        ...

    def rows(self, ids: Sequence[str]) -> Mapping[str, Row]:
        """Those of `ids` (ascending) that are there, by id, however they came to differ from what
        was written.
        """
        ...

    def write(self, rows: Sequence[Row]) -> None:
        """Puts each row in the place of what has its id. After an error some may be written."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Ids that are not there are passed over. After an error some may be deleted."""
        ...

    def close(self) -> None:
        """Gives the connection back."""
        ...


Opener = Callable[[int], Table]
"""Connects to a table for vectors of so many dimensions, one that exists or is to be made. Raises
DatabaseError for a table of other vectors or columns, and where it cannot be reached."""
