"""An incremental build gives what a full build gives, and does only what is new."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.build import BuildOptions, build, plan_build
from indexer.incremental.plan import Change
from indexer.progress import Silent
from indexer.publish import publish
from indexer.source import CorpusColumns, Source
from rag.errors import BuildError
from rag.index.bundle import Bundle
from rag.storage import open_store

TENANT = json.dumps({"metadataAttributes": {"tenant": "a"}})


def write_documents(folder: Path) -> Path:
    folder.mkdir()
    for n in range(6):
        text = f"# Pump {n}\n\nPump {n} is primed.\n\n## Care\n\nClean it every {n + 2} weeks.\n"
        (folder / f"{n}.md").write_text(text)
    (folder / "ko.md").write_text("# 펌프\n\n펌프를 점검한다.\n")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")
    return folder


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "documents")


def same_bundles(one: Path, two: Path) -> None:
    """Every file of the text and of the sparse leg byte for byte, vectors within 1e-6."""
    first, second = Bundle.open(one), Bundle.open(two)
    assert first.manifest.version == second.manifest.version
    for name in [n for n in first.manifest.files if not n.startswith(("dense", "encoder"))]:
        assert filecmp.cmp(one / name, two / name, shallow=False), name
    rows = np.arange(first.store.rows)
    assert np.abs(first.vectors(rows) - second.vectors(rows)).max() <= 1e-6
    for query in ("pump primed", "펌프 점검", "clean weeks"):
        hits = [bundle.search_sparse([query], 5, None) for bundle in (first, second)]
        assert hits[0].rows.tolist() == hits[1].rows.tolist()
        assert hits[0].scores.tolist() == hits[1].scores.tolist()


def edit(folder: Path) -> None:
    (folder / "1.md").write_text((folder / "1.md").read_text() + "\nIt is blue.\n")


def rename(folder: Path) -> None:
    (folder / "2.md").rename(folder / "sub.md")


def sidecar(folder: Path) -> None:
    (folder / "3.md.metadata.json").write_text(TENANT)


def copy(folder: Path) -> None:
    shutil.copy(folder / "4.md", folder / "copy.md")


def touch(folder: Path) -> None:
    os.utime(folder / "5.md", (1, 1))


# What changes, and how many texts then have no vector yet.
CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "edit": (edit, 1),
    "add": (lambda f: (f / "new.md").write_text("# New\n\nA new one.\n"), 1),
    "delete": (lambda f: (f / "0.md").unlink(), 0),
    "delete the only Korean": (lambda f: (f / "ko.md").unlink(), 0),
    "rename": (rename, 0),
    "metadata only": (sidecar, 0),
    "the same content under two names": (copy, 0),
    "touch": (touch, 0),
    "a broken one mended": (lambda f: (f / "broken.pdf").unlink(), 0),
}


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, encoder_cache: Path
) -> tuple[Path, Path]:
    """Documents, and the bundle of them."""
    folder = tmp_path_factory.mktemp("first")
    source = write_documents(folder / "documents")
    options = BuildOptions(encoder=str(tiny_encoder), encoder_cache=encoder_cache)
    return source, build(Source(str(source)), folder / "bundle", options).folder


@pytest.mark.parametrize("change", CHANGES)
def test_an_incremental_build_is_the_full_build(
    change: str, first: tuple[Path, Path], tmp_path: Path, tiny_options: BuildOptions
) -> None:
    folder = tmp_path / "documents"
    shutil.copytree(first[0], folder)  # with the times of its files
    make, texts = CHANGES[change]
    make(folder)
    source = Source(str(folder))
    report = build(source, tmp_path / "next", tiny_options, previous=str(first[1]))
    full = build(source, tmp_path / "full", tiny_options)
    same_bundles(report.folder, full.folder)
    assert report.embedded == texts
    assert report.skipped == full.skipped
    assert report.changes["unchanged"] >= 6


def test_nothing_changed_takes_the_version_before(
    first: tuple[Path, Path], tmp_path: Path, tiny_options: BuildOptions
) -> None:
    source, before = Source(str(first[0])), str(first[1])
    report = build(source, tmp_path / "copied", tiny_options, previous=before)
    assert report.unchanged
    assert Bundle.open(tmp_path / "copied").manifest == Bundle.open(first[1]).manifest
    report = build(source, tmp_path / "told", tiny_options, previous=before, copy_unchanged=False)
    assert report.unchanged
    assert list((tmp_path / "told").iterdir()) == []


def test_what_was_left_out_is_told_where_nothing_changed(
    first: tuple[Path, Path], tmp_path: Path, tiny_options: BuildOptions
) -> None:
    source, before = Source(str(first[0])), str(first[1])
    told = json.loads((first[1] / "report.json").read_bytes())["skipped"]
    assert told
    report = build(source, tmp_path / "next", tiny_options, previous=before, copy_unchanged=False)
    assert report.unchanged
    assert [{"doc_id": s.doc_id, "reason": s.reason} for s in report.skipped] == told
    strict = replace(tiny_options, strict=True)
    with pytest.raises(BuildError, match=told[0]["doc_id"]):
        build(source, tmp_path / "strict", strict, previous=before, copy_unchanged=False)


def test_other_options_are_another_version_with_the_old_vectors(
    first: tuple[Path, Path], tmp_path: Path, tiny_options: BuildOptions
) -> None:
    source, before = Source(str(first[0])), str(first[1])
    for options in (replace(tiny_options, sparse={"k1": 2.0}),
                    replace(tiny_options, analyzer="english")):  # fmt: skip
        folder = tmp_path / str(options.analyzer)
        report = build(source, folder, options, previous=before)
        assert (report.unchanged, report.embedded) == (False, 0)
        same_bundles(folder, build(source, tmp_path / f"{folder.name}-full", options).folder)


def test_only_what_changed_is_read(
    first: tuple[Path, Path], tmp_path: Path, tiny_options: BuildOptions
) -> None:
    folder = tmp_path / "documents"
    shutil.copytree(first[0], folder)
    path = folder / "0.md"
    times = path.stat()
    path.write_text(path.read_text().replace("Pump 0", "Pomp 0"))  # of the same length
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    edit(folder)
    report = build(Source(str(folder)), tmp_path / "next", tiny_options, previous=str(first[1]))
    texts = [chunk.text for chunk in Bundle.open(report.folder).chunks(np.arange(report.chunks))]
    assert any("Pump 0" in text for text in texts)
    assert any("It is blue" in text for text in texts)


def test_a_flipped_bit_of_the_version_before_is_not_taken_over(
    first: tuple[Path, Path], tmp_path: Path, tiny_options: BuildOptions
) -> None:
    folder, before = tmp_path / "documents", tmp_path / "before"
    shutil.copytree(first[0], folder)
    shutil.copytree(first[1], before)
    data = bytearray((before / "chunks.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    (before / "chunks.arrow").write_bytes(data)
    edit(folder)
    with pytest.raises(Exception, match=r"chunks\.arrow"):
        build(Source(str(folder)), tmp_path / "next", tiny_options, previous=str(before))


def test_a_dry_run_lists_what_changed(first: tuple[Path, Path], tmp_path: Path,
                                      tiny_options: BuildOptions) -> None:  # fmt: skip
    folder = tmp_path / "documents"
    shutil.copytree(first[0], folder)
    edit(folder)
    rename(folder)
    plan, _ = plan_build(Source(str(folder)), tiny_options, str(first[1]), tmp_path)
    assert plan.names[Change.ADDED] == ["sub.md"]
    assert plan.names[Change.CHANGED] == ["1.md"]
    assert plan.names[Change.DELETED] == ["2.md"]
    assert plan.counts[Change.UNCHANGED] == 6
    plan, seconds = plan_build(Source(str(folder)), tiny_options, None, tmp_path)
    assert (plan.counts[Change.ADDED], seconds) == (8, None)


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_vectors_are_never_computed_twice_with_a_cache(
    where: str, documents: Path, tmp_path: Path, tiny_options: BuildOptions,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    cache = str(tmp_path / "cache")
    if where == "s3":
        cache = request.getfixturevalue("s3_prefix") + "/cache"
    options = replace(tiny_options, vector_cache=cache)
    source = Source(str(documents))
    one = build(source, tmp_path / "one", options)
    edit(documents)
    two = build(source, tmp_path / "two", options)
    assert (one.embedded, two.embedded) == (one.chunks, 1)
    same_bundles(two.folder, build(source, tmp_path / "full", tiny_options).folder)


def test_rows_of_a_corpus_that_stayed_are_not_parsed_again(
    tmp_path: Path, tiny_options: BuildOptions
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [{"_id": f"p{n}", "text": f"Passage {n} is here.", "acl": ["a"]} for n in range(9)]
    columns = CorpusColumns("text", "_id", metadata=("acl",))

    def write() -> Source:
        (folder / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        return Source(str(folder), columns=columns)

    one = build(write(), tmp_path / "one", tiny_options)
    rows[3]["text"] = "It says another thing."
    del rows[5]
    rows.append({"_id": "p1", "text": "An id that is there already."})
    source = write()
    two = build(source, tmp_path / "two", tiny_options, previous=str(one.folder))
    assert (two.documents, two.embedded) == (8, 2)
    assert [line.doc_id for line in two.skipped] == ["p1"]
    same_bundles(two.folder, build(source, tmp_path / "full", tiny_options).folder)
    found = Bundle.open(two.folder)
    assert found.select({"acl": {"$in": ["a"]}}).sum() == 8


def test_any_machine_goes_on_from_a_published_version(
    documents: Path, s3_prefix: str, tmp_path: Path, tiny_options: BuildOptions
) -> None:
    store = open_store(f"{s3_prefix}/in")
    for path in documents.iterdir():
        store.write(path.name, path.read_bytes(), expected=None)
    source, root = Source(f"{s3_prefix}/in"), f"{s3_prefix}/out"
    first_report = build(source, tmp_path / "one", tiny_options, previous=root)
    publish(first_report.folder, root, Silent())
    store.write("new.md", b"# New\n\nA new one.\n", expected=None)
    report = build(source, tmp_path / "two", tiny_options, previous=root)
    assert (report.embedded, report.changes["added"], report.changes["unchanged"]) == (1, 1, 8)
    publish(report.folder, root, Silent())
    told = build(source, tmp_path / "three", tiny_options, previous=root, copy_unchanged=False)
    assert (told.unchanged, told.version) == (True, report.version)
    same_bundles(report.folder, build(source, tmp_path / "full", tiny_options).folder)


def test_two_builds_do_not_share_a_checkpoint(tmp_path: Path, documents: Path,
                                              tiny_options: BuildOptions) -> None:  # fmt: skip
    import fcntl

    (tmp_path / "checkpoint").mkdir()
    with (tmp_path / "checkpoint" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match="in use by another build"):
            build(Source(str(documents)), tmp_path / "b", tiny_options,
                  checkpoint=tmp_path / "checkpoint")  # fmt: skip
