"""An external database is reconciled with a bundle's passages, and made to hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weaviate_server import KEY, FakeWeaviate

from indexer.audit.database import Reconciled, check_database, reconcile
from indexer.audit.passage_rows import PassageRows, differences
from indexer.external.opening import table_opener
from indexer.external.table import Row, Table
from indexer.external.weaviate_objects import object_id
from indexer.progress import Silent
from rag.errors import DatabaseError
from rag.index.chunks import ChunkStore, DocumentRecord, write_chunks
from rag.index.dense import DenseLeg, build_dense
from rag.types import Chunk

ROWS, DIMENSION, BATCH = 100, 8, 16


def make_passages(folder: Path, **dense: Any) -> PassageRows:
    """ROWS passages of ten documents, with random vectors."""
    documents = [
        DocumentRecord(
            f"d{n}", f"s3://b/d{n}", f"Title {n}", "en", "md", {"team": n, "tags": ["x"]}
        )
        for n in range(10)
    ]
    chunks = [
        Chunk(d.doc_id, d.uri, d.title, f"Passage {n} of {d.doc_id}.", n, n + 9, n or None,
              lang=d.lang, format=d.format, metadata=d.metadata)
        for d in documents
        for n in range(ROWS // 10)
    ]  # fmt: skip
    ordered = sorted((chunk.chunk_id, chunk) for chunk in chunks)
    write_chunks(folder, documents, ordered)
    vectors = np.random.default_rng(3).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    reference = build_dense(folder, vectors, **{"kind": "flat", **dense})
    return PassageRows(ChunkStore.open(folder), DenseLeg.open(folder, reference))


@pytest.fixture(scope="module")
def passages(tmp_path_factory: pytest.TempPathFactory) -> PassageRows:
    return make_passages(tmp_path_factory.mktemp("passages"))


@pytest.fixture
def table(database: Any) -> Iterator[Table]:
    table = table_opener(database.url, database.environment)(DIMENSION)
    yield table
    table.close()


def check(
    passages: PassageRows, table: Table, *, sample: int = ROWS, repair: bool = False
) -> Reconciled:
    return check_database(
        passages, table, sample=sample, repair=repair, progress=Silent(), batch=BATCH
    )


def every(passages: PassageRows) -> list[Row]:
    return passages.rows(np.arange(len(passages)))


def test_a_table_is_filled_from_nothing_and_then_whole(passages: PassageRows, table: Table) -> None:
    ids = list(passages.ids())
    (finding,) = check(passages, table).findings
    assert (finding.part, finding.file) == ("database", "")
    assert finding.problem == f"{ROWS} of {ROWS} passages are missing, as {ids[0]}"
    filled = check(passages, table, repair=True)
    assert filled.left == []
    assert filled.summary == {
        "name": table.name, "rows": ROWS, "compared": ROWS, "written": ROWS, "deleted": 0
    }  # fmt: skip
    assert filled.repaired == ["database (100 rows written, 0 deleted)"]
    held = table.rows(ids)
    for wanted in every(passages):
        assert differences(wanted, held[wanted.chunk_id]) == []
    again = check(passages, table, repair=True)
    assert again.findings == again.left == again.repaired == []


def alter(**changes: Any) -> Callable[[Table, list[Row]], None]:
    return lambda table, rows: table.write([replace(row, **changes) for row in rows[10:13]])


def turn_vectors(table: Table, rows: list[Row]) -> None:
    table.write([replace(row, vector=np.roll(row.vector, 1)) for row in rows[10:13]])


def halve_precision(table: Table, rows: list[Row]) -> None:
    half = [row.vector.astype(np.float16).astype(np.float32) for row in rows]
    table.write([replace(r, vector=v) for r, v in zip(rows[10:13], half[10:13], strict=True)])


def drop(table: Table, rows: list[Row]) -> None:
    table.delete([row.chunk_id for row in rows[10:13]])


def leave_over(table: Table, rows: list[Row]) -> None:
    """One before all others, one behind them, one between; by ids that no passage has."""
    ids = ("0" * 32, f"{int(rows[10].chunk_id, 16) + 1:032x}", "f" * 32)
    table.write([replace(rows[10], chunk_id=chunk_id) for chunk_id in ids])


DIFFER = "3 of 100 rows that were compared differ in {field}, as {tenth}"
DAMAGE: dict[str, tuple[Callable[[Table, list[Row]], None], str]] = {
    "missing": (drop, "3 of 100 passages are missing, as {tenth}"),
    "left over": (leave_over, "3 rows are left over from other versions, as " + "0" * 32),
    "text": (alter(text="Altered."), DIFFER),
    "doc_id": (alter(doc_id="other"), DIFFER),
    "page": (alter(page=77), DIFFER),
    "metadata": (alter(metadata={"team": "x"}), DIFFER),
    "vector": (turn_vectors, DIFFER),
    "vector, by its precision": (halve_precision, DIFFER),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_and_mended(what: str, passages: PassageRows, table: Table) -> None:
    damage, said = DAMAGE[what]
    all_rows = every(passages)
    check(passages, table, repair=True)
    damage(table, all_rows)
    found = check(passages, table)
    said = said.format(field=what.split(",")[0], tenth=all_rows[10].chunk_id)
    assert [f.problem for f in found.findings] == [said]
    assert found.left == found.findings
    assert found.summary["rows"] == ROWS + {"missing": -3, "left over": 3}.get(what, 0)
    mended = check(passages, table, repair=True)
    assert mended.findings == found.findings
    assert mended.left == []
    assert mended.summary["written"] == (0 if what == "left over" else 3)
    assert mended.summary["deleted"] == (3 if what == "left over" else 0)
    assert check(passages, table).findings == []


def test_a_check_compares_the_sample_and_a_repair_everything(
    passages: PassageRows, table: Table
) -> None:
    check(passages, table, repair=True)
    row = every(passages)[50]
    table.write([replace(row, text="Altered.")])
    sampled = check(passages, table, sample=4)
    assert sampled.findings == []
    assert sampled.summary["compared"] == 4
    mended = check(passages, table, sample=4, repair=True)
    assert [f.problem for f in mended.findings] == [
        f"1 of 100 rows that were compared differ in text, as {row.chunk_id}"
    ]
    assert mended.summary["written"] == 1


class Interrupted:
    """The table, until so many calls that change it have been made."""

    def __init__(self, table: Table, changes: int) -> None:
        self.name = table.name
        self.largest = 0
        self._table = table
        self._left = changes

    def ids(self) -> Iterator[str]:
        return self._table.ids()

    def rows(self, ids: Sequence[str]) -> Mapping[str, Row]:
        self.largest = max(self.largest, len(ids))
        return self._table.rows(ids)

    def write(self, rows: Sequence[Row]) -> None:
        self._change(len(rows))
        self._table.write(rows)

    def delete(self, ids: Sequence[str]) -> None:
        self._change(len(ids))
        self._table.delete(ids)

    def close(self) -> None:
        self._table.close()

    def _change(self, size: int) -> None:
        self.largest = max(self.largest, size)
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1


@pytest.mark.parametrize("changes", [0, 1, 4])
def test_an_interrupted_repair_is_finished_by_the_next(
    changes: int, passages: PassageRows, table: Table
) -> None:
    rows = every(passages)
    table.write([replace(row, text="Old.") for row in rows[::3]])
    leave_over(table, rows)
    with pytest.raises(KeyboardInterrupt):
        check(passages, Interrupted(table, changes), repair=True)
    assert check(passages, table).left
    finished = check(passages, table, repair=True)
    assert finished.left == []
    assert list(table.ids()) == list(passages.ids())
    assert check(passages, table).findings == []


def test_no_more_than_a_batch_is_held_at_a_time(passages: PassageRows, table: Table) -> None:
    watched = Interrupted(table, 10**6)
    for sample, repair in ((0, True), (ROWS, True), (ROWS, False)):
        reconcile(passages, watched, sample=sample, repair=repair, progress=Silent(), batch=BATCH)
    assert watched.largest == BATCH


@pytest.mark.parametrize("dense", [{"storage": "int8"}, {"kind": "ivf", "storage": "float16"}])
def test_vectors_are_the_dense_legs_own(
    dense: dict[str, Any], tmp_path: Path, table: Table
) -> None:
    passages = make_passages(tmp_path, **dense)
    assert check(passages, table, repair=True).left == []
    held = table.rows(list(passages.ids()))
    for row in every(passages):
        np.testing.assert_array_equal(held[row.chunk_id].vector, row.vector)


def test_what_a_database_did_not_keep_is_not_called_whole(
    weaviate: FakeWeaviate, passages: PassageRows
) -> None:
    ids = list(passages.ids())
    weaviate.lost = {object_id(ids[5])}
    table = table_opener(f"{weaviate.url}/Passages", {"WEAVIATE_API_KEY": KEY})(DIMENSION)
    done = check(passages, table, repair=True)
    assert [f.problem for f in done.left] == [
        f"after the repair, 1 of 100 passages are missing, as {ids[5]}"
    ]
    assert done.findings[-1] == done.left[0]
    table.close()


def test_a_row_without_a_vector_is_mended(weaviate: FakeWeaviate, passages: PassageRows) -> None:
    table = table_opener(f"{weaviate.url}/Passages", {"WEAVIATE_API_KEY": KEY})(DIMENSION)
    check(passages, table, repair=True)
    first = next(passages.ids())
    weaviate.objects["Passages"][object_id(first)]["vector"] = []
    problems = [f.problem for f in check(passages, table).findings]
    assert problems == [f"1 of 100 rows that were compared differ in vector, as {first}"]
    assert check(passages, table, repair=True).left == []
    table.close()


def test_rows_that_are_refused_end_the_repair(
    weaviate: FakeWeaviate, passages: PassageRows
) -> None:
    ids = list(passages.ids())
    weaviate.refused = {object_id(ids[40])}
    table = table_opener(f"{weaviate.url}/Passages", {"WEAVIATE_API_KEY": KEY})(DIMENSION)
    with pytest.raises(DatabaseError, match=f"refused 1 of 16 rows, as {ids[40]}: told to refuse"):
        check(passages, table, repair=True)
    assert [f.problem for f in check(passages, table).findings] == [
        f"53 of 100 passages are missing, as {ids[40]}"
    ]
    weaviate.refused = set()
    assert check(passages, table, repair=True).left == []
    table.close()
