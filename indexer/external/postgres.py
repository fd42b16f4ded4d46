"""A PostgreSQL table with pgvector's vectors, through psycopg.

Ids are compared byte by byte (COLLATE "C"), which is the order of the bundle's rows. The table has
its primary key and no other index: which one suits the searches that are made on it, such as
pgvector's HNSW with vector_cosine_ops, is for who makes them to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from indexer.external.postgres_connection import Address, PostgresConnection, read_url
from indexer.external.retries import Retries
from indexer.external.table import Opener, Row
from rag.errors import DatabaseError

PAGE = 10_000
"""Ids in one page of a listing."""
COLUMNS = {
    "chunk_id": "text",
    "doc_id": "text",
    "title": "text",
    "text": "text",
    "uri": "text",
    "page": "integer",
    "lang": "text",
    "format": "text",
    "metadata": "jsonb",
    "vector": "vector",
}
"""Every table's columns and their types; the vector's is followed by its dimension."""


def postgres_opener(url: str, retries: Retries) -> Opener:
    """Opens postgresql://user@host/database?table=name. Raises ConfigurationError for another."""
    address = read_url(url)
    return lambda dimension: PostgresTable(address, retries, dimension)


class PostgresTable:
    """The `Table` at `address`, for vectors of `dimension`.

    Raises DatabaseError for a table that is none of these: a column that is not there or is of
    another type, vectors of another dimension.
    """

    def __init__(self, address: Address, retries: Retries, dimension: int) -> None:
        self.name = address.shown
        self._table = sql.Identifier(*address.table)
        self._dimension = dimension
        self._connection = PostgresConnection(address, retries)
        self._exists = self._connection.run(self._learn)

    def close(self) -> None:
        self._connection.close()

    def ids(self) -> Iterator[str]:
        last = ""
        while page := self._page(last):
            yield from page
            last = page[-1]

    def rows(self, ids: Sequence[str]) -> Mapping[str, Row]:
        if not self._exists or not ids:
            return {}
        shown = [sql.Identifier(name) for name in COLUMNS if name != "vector"]
        query = sql.SQL("SELECT {}, vector::real[] FROM {} WHERE chunk_id = ANY(%s)").format(
            sql.SQL(", ").join(shown), self._table
        )
        found = self._connection.run(
            lambda c: c.cursor(binary=True).execute(query, (list(ids),)).fetchall()
        )
        return {values[0]: _row(values) for values in found}

    def write(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        values = [_values(row) for row in rows]
        names = [sql.Identifier(name) for name in COLUMNS]
        query = sql.SQL(
            "INSERT INTO {} ({}) VALUES ({}, %s::real[]::vector)"
            " ON CONFLICT (chunk_id) DO UPDATE SET ({}) = ROW ({})"
        ).format(
            self._table,
            sql.SQL(", ").join(names),
            sql.SQL(", ").join([sql.Placeholder()] * (len(names) - 1)),
            sql.SQL(", ").join(names),
            sql.SQL(", ").join(sql.SQL("EXCLUDED.{}").format(name) for name in names),
        )

        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(query, values)

        if not self._exists:
            self._connection.run(self._create)
            self._exists = True
        self._connection.run(work)

    def delete(self, ids: Sequence[str]) -> None:
        if not self._exists or not ids:
            return
        query = sql.SQL("DELETE FROM {} WHERE chunk_id = ANY(%s)").format(self._table)
        self._connection.run(lambda c: c.execute(query, (list(ids),)))

    def _page(self, after: str) -> list[str]:
        """The ids that follow `after`."""
        if not self._exists:
            return []
        query = sql.SQL(
            'SELECT chunk_id FROM {} WHERE chunk_id > %s COLLATE "C"'
            ' ORDER BY chunk_id COLLATE "C" LIMIT %s'
        ).format(self._table)
        found = self._connection.run(lambda c: c.execute(query, (after, PAGE)).fetchall())
        return [chunk_id for (chunk_id,) in found]

    def _learn(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether the table is there; DatabaseError if it is none to hold passages."""
        found = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (self._table.as_string(connection),),
        )
        types = dict(found.fetchall())
        if not types:
            return False
        for name, kind in COLUMNS.items():
            wanted = f"vector({self._dimension})" if name == "vector" else kind
            held = types.get(name)
            if held != wanted:
                other = "" if held is None else f", but of {held}"
                raise DatabaseError(
                    f"{self.name} has no column '{name}' of type {wanted}{other}; name another"
                    " table, which is then made, or drop this one"
                )
        return True

    def _create(self, connection: psycopg.Connection[Any]) -> None:
        """The extension too, where the user may and it is not there."""
        known = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
        if known.fetchone() is None:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        columns = [
            sql.SQL("{} {}").format(
                sql.Identifier(name), sql.SQL(_definition(name, self._dimension))
            )
            for name in COLUMNS
        ]
        connection.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(
                self._table, sql.SQL(", ").join(columns)
            )
        )


def _definition(name: str, dimension: int) -> Any:
    if name == "chunk_id":
        return 'text COLLATE "C" PRIMARY KEY'
    if name == "vector":
        return f"vector({dimension}) NOT NULL"
    return COLUMNS[name] + ("" if name == "page" else " NOT NULL")


def _values(row: Row) -> list[Any]:
    """As COLUMNS are ordered."""
    plain = [getattr(row, name) for name in COLUMNS if name not in ("metadata", "vector")]
    return [*plain, Jsonb(dict(row.metadata)), row.vector.tolist()]


def _row(values: Sequence[Any]) -> Row:
    """As COLUMNS are ordered."""
    held = dict(zip(COLUMNS, values, strict=True))
    metadata, vector = held.pop("metadata"), held.pop("vector")
    return Row(
        **held,
        metadata=metadata if isinstance(metadata, dict) else {"metadata": metadata},
        vector=np.array(vector or [], dtype=np.float32),
    )
