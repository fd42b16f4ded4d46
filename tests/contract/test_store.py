"""Every store keeps the same promises: a folder, and a real S3 API over HTTP."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rag.errors import ConditionFailed, ConfigurationError, ObjectNotFound, StorageError
from rag.storage import Store, is_remote, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "root"))
    return open_store(request.getfixturevalue("s3_prefix"))


def test_a_written_object_reads_back(store: Store) -> None:
    etag = store.write("a/문서.txt", "안녕".encode(), expected=None)
    data, found = store.read("a/문서.txt")
    assert data.decode() == "안녕"
    assert found == etag


def test_listing_is_sorted_and_limited_to_the_prefix(store: Store) -> None:
    for key in ["b/2.txt", "a/z [1].txt", "b/10.txt", "c.txt"]:
        store.write(key, b"x" * len(key), expected=None)
    assert [info.key for info in store.list()] == ["a/z [1].txt", "b/10.txt", "b/2.txt", "c.txt"]
    assert [(info.key, info.size) for info in store.list("b")] == [("b/10.txt", 8), ("b/2.txt", 7)]
    assert list(store.list("nothing")) == []


def test_create_only_refuses_what_exists(store: Store) -> None:
    store.write("x", b"first", expected=None)
    with pytest.raises(ConditionFailed):
        store.write("x", b"second", expected=None)
    assert store.read("x")[0] == b"first"


def test_replacing_needs_the_current_etag(store: Store) -> None:
    old = store.write("CURRENT", b"1", expected=None)
    new = store.write("CURRENT", b"2", expected=old)
    with pytest.raises(ConditionFailed):
        store.write("CURRENT", b"3", expected=old)
    assert store.read("CURRENT") == (b"2", new)


def test_a_poll_reads_only_what_changed(store: Store) -> None:
    old = store.write("CURRENT", b"1", expected=None)
    assert store.read_unless("CURRENT", old) is None
    new = store.write("CURRENT", b"2", expected=old)
    assert store.read_unless("CURRENT", old) == (b"2", new)
    with pytest.raises(ObjectNotFound):
        store.read_unless("nothing", old)


def test_deleting_is_repeatable_and_leaves_the_rest(store: Store) -> None:
    for key in ("a/1", "a/b/2", "c"):
        store.write(key, b"x", expected=None)
    store.delete(["a/1", "nothing", "a/b/2"])
    store.delete(["a/1"])
    assert [info.key for info in store.list()] == ["c"]
    store.write("a/1", b"y", expected=None)


def test_one_of_many_racing_writers_wins(store: Store) -> None:
    start = store.write("CURRENT", b"0", expected=None)
    outcomes: list[bytes] = []

    def race(name: bytes) -> None:
        try:
            store.write("CURRENT", name, expected=start)
        except ConditionFailed:
            return
        outcomes.append(name)

    threads = [threading.Thread(target=race, args=(b"writer %d" % i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert store.read("CURRENT")[0] == outcomes[0]


def test_files_travel_both_ways(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789" * 100_000)
    store.write("deep/er/file", source, expected=None)
    store.download("deep/er/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_missing_key_is_named(store: Store) -> None:
    with pytest.raises(ObjectNotFound, match=r"no/such/key"):
        store.read("no/such/key")


def test_keys_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="relative"):
        open_store(str(tmp_path)).read("../secret")


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="ftp"):
        open_store("ftp://host/x")
    assert is_remote("s3://bucket/x")
    assert not is_remote("/tmp/x")


def test_a_place_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for root in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
        with pytest.raises(StorageError, match=r"taken.* a file is where a folder must be") as said:
            open_store(str(root)).write("a/b", b"x", expected=None)
        assert not isinstance(said.value, ObjectNotFound)
