"""Every external database keeps the same promises: Weaviate (a fake at the wire), and a real
PostgreSQL with pgvector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from indexer.audit.passage_rows import differences
from indexer.external import postgres, weaviate
from indexer.external.opening import table_opener
from indexer.external.retries import Retries
from indexer.external.table import Row, Table
from rag.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

DIMENSION = 4
QUICK = Retries(wait_initial_s=0.001)
Open = Callable[..., Table]


def row(number: int, **changes: Any) -> Row:
    """Row `number`; ascending numbers have ascending ids."""
    vector = np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)
    plain = Row(
        chunk_id=f"{number * 2**119:032x}", doc_id=f"문서/{number}.md", title=f"Title {number}",
        text=f"Passage {number}: 포트 8080 \U0001f600 'quoted' \"twice\"\n\tand more", page=number,
        uri=f"s3://bucket/{number}.md", lang="ko", format="md", metadata={"team": "a"},
        vector=vector / np.float32(np.linalg.norm(vector)),
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def tables(database: Any) -> Iterator[Open]:
    opened: list[Table] = []

    def open_one(dimension: int = DIMENSION) -> Table:
        opener = table_opener(database.url, database.environment, retries=QUICK)
        opened.append(opener(dimension))
        return opened[-1]

    yield open_one
    for table in opened:
        table.close()


@pytest.fixture
def table(tables: Open) -> Table:
    return tables()


@pytest.fixture
def pages_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (weaviate, postgres):
        monkeypatch.setattr(module, "PAGE", 3)


def test_a_table_that_is_not_there_is_empty_and_is_not_made_by_looking(tables: Open) -> None:
    for table in (tables(), tables(DIMENSION + 1)):
        assert list(table.ids()) == []
        assert table.rows([row(1).chunk_id]) == {}
        table.delete([row(1).chunk_id])
        table.write([])


METADATA: list[dict[str, Any]] = [
    {},
    {"text": "값", "empty": "", "yes": True, "no": False, "int": -3, "float": 0.1, "round": 2.0},
    {"many": ["a", "b"], "mixed": [1, "one", 1.5, True], "none": [], "tuple": (1, 2)},
    {"large": 2**63 - 1, "huge": 1e100, "tiny": 5e-324, "wide": 2**53},
    {"content type": 1, "content_type": 2, "내용": "x", "a.b": "y", "A" * 300: "z", "$x\"'": 1},
    {"meta_text_x": "x", "id": "mine", "chunk_id": "mine too"},
]


@pytest.mark.parametrize("metadata", METADATA)
def test_a_written_row_reads_back(metadata: dict[str, Any], tables: Open) -> None:
    written = [row(1, metadata=metadata), row(2, page=None, title="", uri="")]
    tables().write(written)
    found = tables().rows([r.chunk_id for r in written])
    assert sorted(found) == [r.chunk_id for r in written]
    for wanted in written:
        assert differences(wanted, found[wanted.chunk_id]) == []
        np.testing.assert_array_equal(found[wanted.chunk_id].vector, wanted.vector)
        assert found[wanted.chunk_id].vector.dtype == np.float32


def test_ids_ascend_over_all_pages(table: Table, pages_of_three: None) -> None:
    rows = [row(n) for n in (0, 1, 2, 9, 10, 16, 255)]
    extreme = [replace(row(1), chunk_id=digit * 32) for digit in "0f"]
    table.write([*rows[::-1], extreme[1]])
    assert list(table.ids()) == [*(r.chunk_id for r in rows), extreme[1].chunk_id]


def test_rows_may_change_behind_the_last_id(table: Table, pages_of_three: None) -> None:
    table.write([row(n) for n in range(0, 20, 2)])
    seen = []
    for chunk_id in table.ids():
        seen.append(chunk_id)
        number = int(chunk_id, 16) // 2**119
        if number:
            table.write([row(number - 1)])
        table.delete([chunk_id])
    assert seen == [row(n).chunk_id for n in range(0, 20, 2)]
    assert list(table.ids()) == [row(n).chunk_id for n in range(1, 18, 2)]


@pytest.mark.parametrize("wanted", [[0], [7], [19], [0, 19], [3, 4, 5], [1, 7, 8, 14], [30], []])
def test_only_rows_that_are_asked_for_and_there_are_given(wanted: list[int], table: Table) -> None:
    there = [n for n in range(20) if n % 7]
    table.write([row(n) for n in there])
    found = table.rows([row(n).chunk_id for n in wanted])
    assert sorted(found) == [row(n).chunk_id for n in wanted if n in there]
    assert all(held.text == row(int(k, 16) // 2**119).text for k, held in found.items())


def test_a_write_takes_the_place_of_what_was_there(table: Table) -> None:
    table.write([row(1, metadata={"old": 1, "both": "a"}), row(2)])
    changed = row(
        1, text="other", page=None, metadata={"both": 5, "new": [True]}, vector=-row(1).vector
    )
    table.write([changed])
    found = table.rows([row(1).chunk_id, row(2).chunk_id])
    assert differences(changed, found[changed.chunk_id]) == []
    assert differences(row(2), found[row(2).chunk_id]) == []


def test_deleting_is_repeatable_and_leaves_the_rest(table: Table) -> None:
    table.write([row(n) for n in range(5)])
    for _ in range(2):
        table.delete([row(1).chunk_id, row(3).chunk_id, row(99).chunk_id])
    assert list(table.ids()) == [row(n).chunk_id for n in (0, 2, 4)]


def test_a_table_of_other_vectors_is_refused(tables: Open) -> None:
    tables().write([row(1)])
    with pytest.raises(DatabaseError, match=r"5.*name another") as failed:
        tables(DIMENSION + 1)
    assert "\n" not in str(failed.value)


def test_lost_connections_are_made_again(database: Any, table: Table) -> None:
    table.write([row(1)])
    for work in (
        lambda: table.write([row(2)]),
        lambda: table.delete([row(1).chunk_id]),
        lambda: table.rows([row(2).chunk_id])[row(2).chunk_id],
        lambda: list(table.ids()),
    ):
        database.lose_connections()
        work()
    assert list(table.ids()) == [row(2).chunk_id]


def test_wrong_credentials_are_told_in_one_line_without_secrets(database: Any) -> None:
    url, environment = database.wrong
    with pytest.raises(DatabaseError) as failed:
        table_opener(url, environment, retries=Retries(wait_initial_s=60))(DIMENSION)
    assert not isinstance(failed.value, DatabaseUnavailable)
    assert "some-other" not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_database_that_is_not_there_is_told_in_one_line(database: Any) -> None:
    scheme, _, rest = database.url.partition("127.0.0.1:")
    gone = f"{scheme}127.0.0.1:1{rest.lstrip('0123456789')}"
    with pytest.raises(DatabaseUnavailable) as failed:
        table_opener(gone, database.environment, retries=QUICK)(DIMENSION)
    assert "127.0.0.1:1" in str(failed.value)
    assert database.secret not in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/db", "'mysql'"),
        ("host/Passages", "none"),
        ("weaviate://host/Passages", "'weaviate'"),
        ("weaviate+http://host", "Collection"),
        ("weaviate+http://host/passages", "capital"),
        ("weaviate+http://host:port/Passages", "no URL"),
        ("weaviate+http://user:s3cret@host/Passages", "WEAVIATE_API_KEY"),
        ("postgresql://user:s3cret@host/db", "table"),
        ("postgresql://user:s3cret@host/db?table=", "table"),
        ("postgresql://user:s3cret@host/db?table=a.b.c", "table"),
        ("postgresql://user:s3cret@host/db?table=a&nonsense=1", "percent-encoded"),
        ("postgresql://user:s3/cret@host/db?table=a&port=x", "percent-encoded"),
    ],
)
def test_other_urls_are_refused_in_one_line(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as failed:
        table_opener(url, {}, retries=QUICK)
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)
    assert "cret" not in str(failed.value)
