from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.build import BuildOptions, BuildReport, build
from indexer.progress import Silent
from indexer.publish import publish
from indexer.source import Source
from indexer.verify import verify
from rag.errors import BuildError, ConditionFailed
from rag.index.bundle import Bundle, open_bundle
from rag.index.pointer import CURRENT
from rag.storage import open_store

TEXTS = {
    "ports.md": "# Ports\n\nThe container listens on port 8080 for pings and invocations.\n",
    "stop.md": "# Stopping\n\nSIGTERM comes first; after thirty seconds SIGKILL follows.\n",
    "ko/중지.md": "# 컨테이너 중지\n\n종료 신호를 받으면 진행 중인 요청을 마치고 끝낸다.\n",
    "data.csv": "instance,memory\nsmall,4 GiB\nlarge,16 GiB\n",
}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def options(encoder_cache: Path) -> BuildOptions:
    return BuildOptions(encoder_cache=encoder_cache, backend="onnx")


def built(documents: Path, folder: Path, options: BuildOptions) -> BuildReport:
    return build(Source(str(documents)), folder, options)


def test_a_bundle_holds_every_document_on_both_legs(
    documents: Path, tmp_path: Path, options: BuildOptions
) -> None:
    report = built(documents, tmp_path / "bundle", options)
    assert (report.documents, report.skipped) == (4, ())
    bundle = Bundle.open(report.folder)
    chunks = bundle.chunks(np.arange(report.chunks))
    assert {chunk.doc_id for chunk in chunks} == set(TEXTS)
    assert [chunk.chunk_id for chunk in chunks] == sorted(chunk.chunk_id for chunk in chunks)
    found = bundle.search_sparse(["종료 신호"], 3, None)
    assert chunks[int(found.rows[0, 0])].doc_id == "ko/중지.md"
    assert not (report.folder / ".work").exists()


def test_the_same_documents_elsewhere_give_the_same_version(
    documents: Path, tmp_path: Path, options: BuildOptions
) -> None:
    first = built(documents, tmp_path / "one", options)
    moved = documents.rename(tmp_path / "moved")
    (moved / "stop.md").touch()
    second = built(moved, tmp_path / "two", options)
    assert first.version == second.version
    for name in sorted(p.relative_to(first.folder).as_posix() for p in first.folder.rglob("*.*")):
        if name.startswith(("sparse/", "chunks", "documents", "report")):
            assert filecmp.cmp(first.folder / name, second.folder / name, shallow=False), name


def test_a_changed_document_or_option_gives_another_version(
    documents: Path, tmp_path: Path, options: BuildOptions
) -> None:
    first = built(documents, tmp_path / "one", options)
    (documents / "stop.md").write_text(TEXTS["stop.md"] + "\nAnd more.\n")
    second = built(documents, tmp_path / "two", options)
    other = BuildOptions(encoder_cache=options.encoder_cache, backend="onnx", sparse={"k1": 2.0})
    third = built(documents, tmp_path / "three", other)
    assert len({first.version, second.version, third.version}) == 3


def test_hash_seeds_do_not_change_a_byte_of_the_sparse_leg(
    documents: Path, tmp_path: Path, encoder_cache: Path, exported_encoder: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from indexer.build import *;"
        "from indexer.source import Source;"
        "o = BuildOptions(backend='onnx', encoder_cache=Path(sys.argv[3]));"
        "print(build(Source(sys.argv[1]), Path(sys.argv[2]), o).version)"
    )
    versions = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-c", script, documents, tmp_path / seed, encoder_cache]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        versions.add(done.stdout.strip())
    assert len(versions) == 1
    names = sorted(path.name for path in (tmp_path / "0" / "sparse").iterdir())
    same, different, missing = filecmp.cmpfiles(
        tmp_path / "0" / "sparse", tmp_path / "1" / "sparse", names, shallow=False
    )
    assert (sorted(same), different, missing) == (names, [], [])


def test_unreadable_documents_are_reported_and_the_rest_is_built(
    documents: Path, tmp_path: Path, options: BuildOptions
) -> None:
    (documents / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")
    (documents / "program.exe").write_bytes(b"MZ\x00\x01")
    (documents / "empty.txt").write_bytes(b"")
    (documents / "huge.md").write_text("---\nnumber: 1" + "0" * 40 + "\n---\nText.\n")
    report = built(documents, tmp_path / "bundle", options)
    assert report.documents == 4
    names = ["broken.pdf", "empty.txt", "huge.md", "program.exe"]
    assert [s.doc_id for s in report.skipped] == names
    assert all(s.reason and "\n" not in s.reason for s in report.skipped)
    assert not any(s.doc_id in s.reason for s in report.skipped)
    told = json.loads((report.folder / "report.json").read_text())
    assert [line["doc_id"] for line in told["skipped"]] == [s.doc_id for s in report.skipped]
    strict = BuildOptions(encoder_cache=options.encoder_cache, backend="onnx", strict=True)
    with pytest.raises(BuildError, match=r"4 of 8.*broken\.pdf"):
        built(documents, tmp_path / "strict", strict)


def test_nothing_readable_is_an_error(tmp_path: Path, options: BuildOptions) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "x.exe").write_bytes(b"MZ")
    with pytest.raises(BuildError, match="none of 1"):
        built(tmp_path / "documents", tmp_path / "bundle", options)


def test_a_full_folder_is_left_alone(tmp_path: Path, options: BuildOptions) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(BuildError, match="not empty"):
        built(tmp_path, tmp_path, options)


def test_from_a_bucket_to_a_bucket(s3_prefix: str, tmp_path: Path, options: BuildOptions) -> None:
    documents = open_store(f"{s3_prefix}/in")
    for name, text in TEXTS.items():
        documents.write(name, text.encode(), expected=None)
    report = build(Source(f"{s3_prefix}/in"), tmp_path / "bundle", options)
    root = f"{s3_prefix}/out"
    assert publish(report.folder, root, Silent()) == report.version
    assert publish(report.folder, root, Silent()) == report.version
    result = verify(root, tmp_path / "cache")
    assert (result["version"], result["documents"]) == (report.version, 4)
    bundle = open_bundle(root, cache_dir=tmp_path / "cache")
    (chunk,) = bundle.chunks(bundle.search_sparse(["SIGKILL"], 1, None).rows[0])
    assert chunk.uri == f"{s3_prefix}/in/stop.md"


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_publishing_finishes_what_an_interrupted_run_left(
    where: str,
    documents: Path,
    tmp_path: Path,
    options: BuildOptions,
    request: pytest.FixtureRequest,
) -> None:
    report = built(documents, tmp_path / "bundle", options)
    root = str(tmp_path / "root") if where == "folder" else request.getfixturevalue("s3_prefix")
    store = open_store(f"{root}/versions/{report.version}")
    store.write("chunks.arrow", b"half", expected=None)
    store.write("report.json", (report.folder / "report.json").read_bytes(), expected=None)
    publish(report.folder, root, Silent())
    assert open_bundle(root, cache_dir=tmp_path / "cache").manifest.version == report.version


def test_a_publisher_that_was_overtaken_says_so(
    documents: Path, tmp_path: Path, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = built(documents, tmp_path / "bundle", options)
    root = tmp_path / "root"
    import indexer.publish as publishing

    upload = publishing.upload

    def overtaken(*arguments: object) -> None:
        upload(*arguments)  # type: ignore[arg-type]
        open_store(str(root)).write(CURRENT, b'{"version":"other"}', expected=None)

    monkeypatch.setattr(publishing, "upload", overtaken)
    with pytest.raises(ConditionFailed, match="run the command again"):
        publish(report.folder, str(root), Silent())
    assert json.loads((root / CURRENT).read_text()) == {"version": "other"}
