"""What may become of versions at a root: who may write one, which ones may go, what is current."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer import claims, retention
from indexer.progress import Silent
from indexer.publish import point, publish, rollback
from indexer.upload import upload
from rag.errors import BuildError, BundleMissing, ConditionFailed
from rag.index.manifest import FORMAT, NAME, Manifest, version_id
from rag.index.pointer import CURRENT
from rag.index.root import Root
from rag.index.seal import inventory, read_manifest, verify_files, write_manifest
from rag.storage import Store, open_store

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Seals a folder of two files whose version follows from `name`; `salt` changes its bytes."""

    def sealed(name: str, salt: str = "") -> Path:
        folder = tmp_path / f"{name}{salt}"
        (folder / "dense").mkdir(parents=True)
        (folder / "chunks.arrow").write_text(f"text of {name}")
        (folder / "dense/index.faiss").write_text(f"vectors of {name}{salt}")
        parts: dict[str, Any] = {
            p: {} for p in ("encoder", "analyzer", "chunker", "dense", "sparse", "fusion")
        }
        manifest = Manifest(
            version=version_id(name, format=FORMAT, **parts), chunks_digest=name,
            counts={"documents": 1, "chunks": 1}, files=inventory(folder), **parts,
        )  # fmt: skip
        write_manifest(folder, manifest)
        return folder

    return sealed


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "root")
    return str(request.getfixturevalue("s3_prefix"))


def version(folder: Path) -> str:
    return read_manifest(folder).version


def place(root: str, folder: Path) -> Store:
    return open_store(Root(root).version_uri(version(folder)))


def check_whole(root: str, folder: Path, tmp_path: Path) -> None:
    """The version at the root is, byte for byte, the sealed folder."""
    copy = tmp_path / f"copy-{time.monotonic_ns()}"
    for info in place(root, folder).list():
        (copy / info.key).parent.mkdir(parents=True, exist_ok=True)
        place(root, folder).download(info.key, copy / info.key)
    verify_files(copy, read_manifest(folder))
    assert (copy / NAME).read_bytes() == (folder / NAME).read_bytes()


def test_a_stopped_publisher_that_goes_on_breaks_nothing(
    root: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claimed the version, wrote one file, and slept; another took over, with other bytes."""
    sleeper, other = make("a"), make("a", "!")
    store = place(root, sleeper)
    claim = claims.take(store, read_manifest(sleeper), Silent())
    assert claim is not None
    store.write("dense/index.faiss", sleeper / "dense/index.faiss", expected=None)
    monkeypatch.setattr(claims, "PATIENCE_S", 0.0)
    publish(other, root, Silent())
    with pytest.raises(ConditionFailed):
        claims.check(store, claim)
    with pytest.raises(ConditionFailed):
        claims.seal(store, claim, read_manifest(sleeper))
    check_whole(root, other, tmp_path)


def test_a_publisher_of_other_bytes_is_waited_for(
    root: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make("a"), make("a", "!")

    def finished(seconds: float) -> None:
        upload(first, read_manifest(first), place(root, first), Silent())

    assert claims.take(place(root, first), read_manifest(first), Silent()) is not None
    monkeypatch.setattr(time, "sleep", finished)
    assert not upload(second, read_manifest(second), place(root, second), Silent())
    check_whole(root, first, tmp_path)


def test_the_same_files_are_taken_over_at_once(root: str, make: Make, tmp_path: Path) -> None:
    folder = make("a")
    assert claims.take(place(root, folder), read_manifest(folder), Silent()) is not None
    place(root, folder).write("chunks.arrow", b"half", expected=None)
    publish(folder, root, Silent())
    check_whole(root, folder, tmp_path)


def test_a_version_that_lost_a_file_is_not_published(root: str, make: Make) -> None:
    folder = make("a")
    publish(folder, root, Silent())
    publish(make("b"), root, Silent())
    place(root, folder).delete(["chunks.arrow"])
    for again in (lambda: publish(folder, root, Silent()), lambda: rollback(root, None)):
        with pytest.raises(Exception, match=r"not whole|no earlier"):
            again()


def test_rollback_goes_one_back_each_time(root: str, make: Make) -> None:
    a, b, c = (make(name) for name in "abc")
    for folder in (a, b, c):
        publish(folder, root, Silent())
    assert rollback(root, None) == (version(c), version(b))
    pointer = Root(root).current()
    assert pointer is not None
    assert [past.version for past in pointer.previous] == [version(c), version(a)]
    assert rollback(root, None) == (version(b), version(a))
    with pytest.raises(BuildError, match="no earlier version"):
        rollback(root, None)
    assert rollback(root, version(c)) == (version(a), version(c))
    assert rollback(root, None) == (version(c), version(a))
    with pytest.raises(BundleMissing, match="no version"):
        rollback(root, "0" * 32)


def test_a_poll_tells_only_of_changes(root: str, make: Make) -> None:
    publish(make("a"), root, Silent())
    place = Root(root)
    known = place.current()
    assert known is not None
    assert place.poll(known) is None
    publish(make("b"), root, Silent())
    changed = place.poll(known)
    assert changed == place.current()
    assert changed is not None
    assert changed.version != known.version


def test_what_pruning_keeps(root: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: make(name) for name in "abcde"}
    for name in "abcd":
        publish(folders[name], root, Silent())
    claims.take(place(root, folders["e"]), read_manifest(folders["e"]), Silent())
    retention.pin(Root(root), version(folders["a"]))
    names = {version(folder): name for name, folder in folders.items()}

    def kept(keep: int, grace_s: float) -> dict[str, str | None]:
        plan = retention.plan(Root(root), keep=keep, grace_s=grace_s)
        return {names[verdict.version]: verdict.keep for verdict in plan}

    always = {"a": "pinned", "d": "current", "e": "unfinished"}
    assert kept(1, 0.0) == {**always, "b": None, "c": None}
    assert kept(3, 0.0) == {**always, "b": None, "c": "recent"}
    assert kept(1, 60.0) == {**always, "b": "young", "c": "young"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert kept(1, 60.0) == {"a": "pinned", "d": "current", "b": None, "c": None, "e": None}
    retention.prune(Root(root), Silent(), keep=1, grace_s=0.0)
    assert {names[info.version] for info in Root(root).versions()} == {"a", "d"}


def test_what_is_being_pruned_cannot_go_live(
    root: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make("a"), make("b")
    publish(a, root, Silent())
    publish(b, root, Silent())
    at = Root(root)
    known = at.current()
    assert known is not None
    retention._mark(at, known, [version(a)])
    for attempt in (lambda: rollback(root, version(a)), lambda: publish(a, root, Silent())):
        with pytest.raises(BuildError, match="being pruned"):
            attempt()
    with pytest.raises(BuildError, match="being pruned"):
        point(at, version(a), known)  # it looked before the prune began
    with pytest.raises(BuildError, match="being pruned"):
        retention.pin(at, version(a))
    point(at, version(make("c")), known)  # the mark does not hinder others
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    publish(a, root, Silent())  # the prune died long ago
    assert json.loads(at.store.read(CURRENT)[0])["version"] == version(a)
