"""What is PostgreSQL's own: names, columns, texts that it cannot hold, the package it needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from postgres_process import PASSWORD

from indexer.external.opening import table_opener
from indexer.external.retries import Retries
from indexer.external.table import Row
from rag.errors import ConfigurationError, DatabaseError

ROW = Row(
    "0123456789abcdef" * 2, "d.md", "Title", "Text.", "s3://b/d.md", 3, "en", "md",
    {"team": "a"}, np.array([0.6, 0.8], dtype=np.float32),
)  # fmt: skip
QUICK = Retries(wait_initial_s=0.001)


@pytest.fixture
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection
        connection.execute("DROP TABLE IF EXISTS mine")


@pytest.mark.parametrize("name", ["archive.passages", 'we"ird; DROP TABLE x', "Größe"])
def test_any_name_and_schema_will_do(
    name: str, postgres: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS archive")
    table = table_opener(f"{postgres}?table={name}", {})(2)
    table.write([ROW])
    assert list(table.ids()) == [ROW.chunk_id]
    table.close()
    again = table_opener(f"{postgres}?table={name}&sslmode=disable", {})(2)
    assert list(again.ids()) == [ROW.chunk_id]
    again.close()


def test_columns_are_what_users_of_sql_ask_for(
    postgres: str, connection: psycopg.Connection
) -> None:
    table = table_opener(f"{postgres}?table=asked", {})(2)
    table.write([ROW])
    table.close()
    nearest = connection.execute(
        'SELECT doc_id, page, text FROM asked WHERE metadata @> \'{"team": "a"}\''
        " ORDER BY vector <=> '[1, 0]' LIMIT 1"
    )
    assert nearest.fetchall() == [("d.md", 3, "Text.")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("chunk_id text", "no column 'doc_id' of type text;"),
        ("chunk_id uuid", "no column 'chunk_id' of type text, but of uuid;"),
        (
            "chunk_id text, doc_id text, title text, text text, uri text, page integer, lang text,"
            " format text, metadata jsonb, vector vector(3)",
            r"no column 'vector' of type vector\(2\), but of vector\(3\);",
        ),
    ],
)
def test_a_table_of_something_else_is_refused(
    columns: str, said: str, postgres: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(f"CREATE TABLE mine ({columns})")
    with pytest.raises(DatabaseError, match=said):
        table_opener(f"{postgres}?table=mine", {}, retries=QUICK)(2)


def test_a_batch_is_written_whole_or_not_at_all(
    postgres: str, connection: psycopg.Connection
) -> None:
    table = table_opener(f"{postgres}?table=mine", {}, retries=Retries(wait_initial_s=60))(2)
    with pytest.raises(DatabaseError, match="cannot contain NUL"):
        table.write([ROW, replace(ROW, chunk_id="f" * 32, text="nul \0")])
    assert list(table.ids()) == []
    table.close()


def test_an_unknown_database_is_told_at_once_without_the_password(postgres: str) -> None:
    url = postgres.replace("/postgres", "/nowhere") + "?table=mine"
    with pytest.raises(DatabaseError, match='database "nowhere" does not exist') as failed:
        table_opener(url, {}, retries=Retries(wait_initial_s=60))(2)
    assert PASSWORD not in str(failed.value)


def test_without_psycopg_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("postgres", "postgres_connection"):
        monkeypatch.delitem(sys.modules, f"indexer.external.{name}", raising=False)
    with pytest.raises(ConfigurationError, match=r"rag-containers\[databases\]"):
        table_opener("postgresql://host/db?table=t", {})
