from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BuildError, BundleCorrupt, BundleMissing, BundleMixed
from rag.index import chunk_files
from rag.index.chunks import ChunkStore, DocumentRecord, metadata_problem, write_chunks
from rag.index.manifest import chunks_digest, packed_digest
from rag.types import Chunk

METADATA: list[dict[str, Any]] = [
    {"year": 2024, "tags": ["뉴스", 1, 2.5, True], "연도": "이천", "ok": False},
    {"year": "2024", "empty": [], "score": 1.0},
    {},
]


def records() -> list[DocumentRecord]:
    return [
        DocumentRecord(
            f"문서/{i}.md", f"s3://b/문서/{i}.md", f"제목 {i}", "ko", "md", m, "ab" * 32, i
        )
        for i, m in enumerate(METADATA)
    ]


def chunks_of(documents: list[DocumentRecord], each: int = 3) -> list[tuple[str, Chunk]]:
    made = [
        Chunk(
            r.doc_id,
            r.uri,
            r.title,
            f"본문 {i} 😀",
            i * 10,
            i * 10 + 6,
            page=None if i == 0 else i,
            headings=("장", f"{i}절")[:i],
            context="제목 > 장" * (i % 2),
            lang=r.lang,
            format=r.format,
            metadata=r.metadata,
        )
        for r in documents
        for i in range(each)
    ]
    return sorted((c.chunk_id, c) for c in made)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches even for a few rows."""
    monkeypatch.setattr(chunk_files, "CHUNKS_PER_BATCH", 4)
    monkeypatch.setattr(chunk_files, "DOCUMENTS_PER_BATCH", 2)


@pytest.fixture
def store(tmp_path: Path, small_batches: None) -> ChunkStore:
    assert write_chunks(tmp_path, records(), chunks_of(records())) == (3, 9)
    return ChunkStore.open(tmp_path)


def test_what_was_written_is_read(store: ChunkStore) -> None:
    written = chunks_of(records())
    assert (store.rows, store.documents) == (9, 3)
    rows = np.array([8, 0, 3, 3, 7], dtype=np.int64)
    assert store.chunks(rows) == [written[row][1] for row in rows]
    assert store.chunk_ids(rows) == [written[row][0] for row in rows]
    assert [c.chunk_id for c in store.chunks(rows)] == store.chunk_ids(rows)
    assert b"".join(store.packed_ids()).hex() == "".join(chunk_id for chunk_id, _ in written)
    assert packed_digest(store.packed_ids()) == chunks_digest(chunk_id for chunk_id, _ in written)
    assert list(store.records()) == records()
    assert store.record("문서/1.md") == records()[1]
    assert store.record("문서/9.md") is None
    assert store.record("") is None
    assert store.chunks(np.empty(0, dtype=np.int64)) == []


def test_types_of_metadata_survive(store: ChunkStore) -> None:
    record = store.record("문서/1.md")
    assert record is not None
    assert type(record.metadata["score"]) is float
    tags = store.record("문서/0.md").metadata["tags"]  # type: ignore[union-attr]
    assert [type(tag) for tag in tags] == [str, int, float, bool]  # type: ignore[union-attr]


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (2, 7), (3, 4), (5, 5), (7, 99), (0, 0)])
def test_indexed_texts(store: ChunkStore, start: int, stop: int) -> None:
    expected = [chunk.indexed_text for _, chunk in chunks_of(records())[start:stop]]
    assert store.indexed_texts(start, stop) == expected


@pytest.mark.parametrize("rows", [[-1], [0, 9], [3, -1]])
def test_rows_outside_are_refused(store: ChunkStore, rows: list[int]) -> None:
    for read in (store.chunks, store.chunk_ids):
        with pytest.raises(IndexError, match=r"0\.\.8"):
            read(np.array(rows, dtype=np.int64))


def test_an_empty_bundle(tmp_path: Path) -> None:
    assert write_chunks(tmp_path, [], []) == (0, 0)
    store = ChunkStore.open(tmp_path)
    assert (store.rows, store.documents) == (0, 0)
    assert store.select({"page": 1, "year": 2, "lang": "ko", "chunk_id": "a"}).tolist() == []
    assert b"".join(store.packed_ids()) == b""
    assert packed_digest(store.packed_ids()) == chunks_digest([])
    assert store.record("x") is None


def test_equal_input_gives_equal_bytes(tmp_path: Path, small_batches: None) -> None:
    digests = set()
    for name in ("a", "b"):
        shuffled = [
            DocumentRecord(**{**_fields(r), "metadata": dict(reversed(r.metadata.items()))})
            for r in records()
        ]
        write_chunks(tmp_path / name, records() if name == "a" else shuffled, chunks_of(records()))
        digests.add(
            tuple(
                hashlib.sha256((tmp_path / name / f).read_bytes()).hexdigest()
                for f in ("documents.arrow", "chunks.arrow")
            )
        )
    assert len(digests) == 1


def _fields(record: DocumentRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def test_input_is_streamed(tmp_path: Path, small_batches: None) -> None:
    """When the tenth chunk is asked for, an earlier batch has been written already."""
    documents = records()
    path = tmp_path / "chunks.arrow"

    def chunks() -> Iterator[tuple[str, Chunk]]:
        for i, item in enumerate(chunks_of(documents, each=500)):
            if i == 1400:
                assert path.stat().st_size > 100_000
            yield item

    write_chunks(tmp_path, iter(documents), chunks())
    assert ChunkStore.open(tmp_path).rows == 1500


def test_bad_order_is_refused(tmp_path: Path) -> None:
    documents, chunks = records(), chunks_of(records())
    for bad in (list(reversed(documents)), [documents[0], documents[0]]):
        with pytest.raises(BuildError, match="must ascend"):
            write_chunks(tmp_path, bad, [])
    for bad_chunks in (list(reversed(chunks)), [chunks[0], chunks[0]]):
        with pytest.raises(BuildError, match="must ascend"):
            write_chunks(tmp_path, documents, bad_chunks)
    with pytest.raises(BuildError, match="no document here"):
        write_chunks(tmp_path, [], chunks[:1])
    for bad_id in ("x" * 32, "AB" * 16, "ab" * 15, "ab " * 16):
        with pytest.raises(BuildError, match="32 lower-case hex digits"):
            write_chunks(tmp_path, documents, [(bad_id, chunks[0][1])])


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": None},
        {"a": {"b": 1}},
        {"a": [[1]]},
        {"a": float("nan")},
        {"a": [1, float("inf")]},
        {"a": 2**63},
        {"a": "\ud800"},
        {"\udfff": 1},
        {1: 1},
    ],
)
def test_metadata_that_cannot_be_stored(tmp_path: Path, metadata: Any) -> None:
    assert metadata_problem(metadata)
    record = DocumentRecord("문서", "u", "t", "ko", "md", metadata)
    with pytest.raises(BuildError, match="document '문서': metadata"):
        write_chunks(tmp_path, [record], [])


def test_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    chunk = Chunk("d", "u", "t", "\ud800", 0, 1)
    with pytest.raises(BuildError, match=r"chunks\.arrow"):
        write_chunks(
            tmp_path, [DocumentRecord("d", "u", "t", "ko", "md")], [(chunk.chunk_id, chunk)]
        )


def test_too_many_kinds_of_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_files, "MAX_FIELDS", 5)
    with pytest.raises(BuildError, match="kinds of metadata"):
        write_chunks(tmp_path, records(), [])


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        SCALARS | st.lists(SCALARS, max_size=3),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_metadata_comes_back(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("metadata")
    write_chunks(folder, [DocumentRecord("d", "u", "t", "ko", "md", metadata)], [])
    record = ChunkStore.open(folder).record("d")
    assert record is not None
    assert record.metadata == metadata
    assert repr(sorted(record.metadata.items())) == repr(sorted(metadata.items()))


@pytest.mark.parametrize("name", ["documents.arrow", "chunks.arrow"])
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    write_chunks(tmp_path, records(), chunks_of(records()))
    path = tmp_path / name
    whole = path.read_bytes()
    for damaged in (b"", b"no arrow at all", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(BundleCorrupt, match=name):
            ChunkStore.open(tmp_path)
    table = pa.table({"x": [1]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(BundleCorrupt, match="other columns"):
        ChunkStore.open(tmp_path)
    os.unlink(path)
    with pytest.raises(BundleMissing, match=name):
        ChunkStore.open(tmp_path)


def test_files_of_two_bundles_are_noticed(tmp_path: Path) -> None:
    write_chunks(tmp_path / "a", records(), chunks_of(records()))
    write_chunks(tmp_path / "b", records()[:1], [])
    (tmp_path / "b" / "documents.arrow").replace(tmp_path / "a" / "documents.arrow")
    with pytest.raises(BundleMixed, match=r"chunks\.arrow"):
        ChunkStore.open(tmp_path / "a")


def test_reading_from_many_threads(store: ChunkStore) -> None:
    expected = store.chunks(np.arange(9))
    wrong: list[int] = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(50):
            rows = random.integers(0, 9, 20)
            if store.chunks(rows) != [expected[row] for row in rows]:
                wrong.append(seed)
            page = int(random.integers(1, 3))
            if store.select({"page": page}).tolist() != [c.page == page for c in expected]:
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_masks_are_forgotten_when_they_grow_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.index.chunks.MASK_CACHE_BYTES", 20)
    write_chunks(tmp_path, records(), chunks_of(records()))
    store = ChunkStore.open(tmp_path)
    first = store.select({"page": 1})
    assert store.select({"page": 1}) is first
    store.select({"page": 2})
    store.select({"page": 3})
    again = store.select({"page": 1})
    assert again is not first
    assert again.tolist() == first.tolist()
