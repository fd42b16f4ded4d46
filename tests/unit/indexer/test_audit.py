"""Damage is found by name and mended; documents are explained; versions are compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from indexer.__main__ import app
from indexer.audit.difference import difference, open_side
from indexer.audit.explain_command import explain_file
from indexer.audit.fsck import run_fsck
from indexer.build import BuildOptions, build
from indexer.external.opening import table_opener
from indexer.pipeline.workers import Limits
from indexer.progress import Silent
from indexer.publish import publish
from indexer.source import CorpusColumns, Source
from rag.errors import BuildError, ConfigurationError, UnreadableDocument
from rag.index.bundle import Bundle
from rag.index.chunks import ChunkStore
from rag.index.dense import build_dense
from rag.index.manifest import NAME, Manifest
from rag.index.root import Root
from rag.index.seal import inventory, read_manifest, write_manifest
from rag.index.sparse import build_sparse
from rag.storage import open_store

TEXTS = {
    "ports.md": "# Ports\n\nThe container listens on port 8080 for pings and invocations.\n",
    "stop.md": "# Stopping\n\nSIGTERM comes first; after thirty seconds SIGKILL follows.\n",
    "휴가.md": "# 휴가\n\n직원은 매년 연차 휴가를 쓸 수 있다.\n",
}


def make(texts: dict[str, str], folder: Path, encoder: Path, cache: Path, **options: Any) -> Path:
    source = folder / "documents"
    source.mkdir(parents=True)
    for name, text in texts.items():
        (source / name).write_text(text, encoding="utf-8")
    settings = BuildOptions(
        encoder=str(encoder), encoder_cache=cache, dense={"kind": "flat"},
        limits=Limits(processes=1), **options,
    )  # fmt: skip
    return build(Source(str(source)), folder / "bundle", settings).folder


@pytest.fixture(scope="session")
def small_bundle(
    tiny_encoder: Path, encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make(TEXTS, tmp_path_factory.mktemp("audit"), tiny_encoder, encoder_cache)


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "copy"))


def fsck(uri: object, *, repair: bool = False, healthy: object = None) -> dict[str, Any]:
    source = None if healthy is None else str(healthy)
    return run_fsck(str(uri), None, repair=repair, healthy=source, sample=8, progress=Silent())


def reseal(folder: Path) -> None:
    """Seals what lies there, as if it were right."""
    manifest = read_manifest(folder)
    (folder / NAME).unlink()
    raw = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
    write_manifest(folder, Manifest(**(raw | {"files": inventory(folder)})))


def test_a_whole_bundle_is_whole(small_bundle: Path) -> None:
    result = fsck(small_bundle)
    assert result["whole"]
    assert result["findings"] == []


def flip(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (folder / name).write_bytes(data)

    return damage


def swap_vectors(folder: Path) -> None:
    """Each row gets another row's vector, sealed as if it were right."""
    bundle = Bundle.open(folder)
    rows = np.arange(bundle.manifest.counts["chunks"])
    build_dense(folder, np.roll(bundle.vectors(rows), 1, axis=0), kind="flat")
    reseal(folder)


def swap_terms(folder: Path) -> None:
    bundle = Bundle.open(folder)
    texts = ChunkStore.open(folder).indexed_texts(0, 99)[::-1]
    shutil.rmtree(folder / "sparse")
    build_sparse(folder, bundle.analyzer.batch(texts), weight=bundle.analyzer.weight)
    reseal(folder)


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a flipped byte of the postings": ("sparse", flip("sparse/rows.npy")),
    "lost terms": ("sparse", lambda f: (f / "sparse/forward_terms.npy").unlink()),
    "a lost dense leg": ("dense", lambda f: (f / "dense/index.faiss").unlink()),
    "a lost state": ("state", lambda f: (f / "state/objects.arrow").unlink()),
    "a lost report": ("report.json", lambda f: (f / "report.json").unlink()),
    "vectors of other rows": ("dense", swap_vectors),
    "terms of other rows": ("sparse", swap_terms),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_mended_from_what_is_left(
    what: str, copy: Path, small_bundle: Path
) -> None:
    part, damage = DAMAGE[what]
    damage(copy)
    found = fsck(copy)
    assert {finding["part"] for finding in found["findings"]} == {part}
    assert not found["whole"]
    assert fsck(copy, repair=True)["whole"]
    mended, healthy = Bundle.open(copy), Bundle.open(small_bundle)
    assert mended.manifest.version == healthy.manifest.version
    rows = np.arange(healthy.manifest.counts["chunks"])
    np.testing.assert_allclose(mended.vectors(rows), healthy.vectors(rows), atol=1e-5)
    for name in ("rows", "scores", "forward_terms"):
        file = f"sparse/{name}.npy"
        assert (copy / file).read_bytes() == (small_bundle / file).read_bytes()


def test_text_that_is_not_what_its_id_says_is_found(copy: Path) -> None:
    data = (copy / "chunks.arrow").read_bytes()
    (copy / "chunks.arrow").write_bytes(data.replace(b"port 8080", b"port 9090"))
    reseal(copy)
    (finding,) = fsck(copy)["findings"]
    assert finding["part"] == "chunks"
    assert "1 chunk ids" in finding["problem"]


def test_lost_text_comes_from_a_healthy_copy_only(copy: Path, small_bundle: Path) -> None:
    flip("chunks.arrow")(copy)
    flip("encoder/onnx/model_int8.onnx")(copy)
    with pytest.raises(BuildError, match="--from"):
        fsck(copy, repair=True)
    assert fsck(copy, repair=True, healthy=small_bundle)["whole"]
    assert (copy / NAME).read_bytes() == (small_bundle / NAME).read_bytes()


def test_a_root_on_s3_is_mended(s3_prefix: str, small_bundle: Path) -> None:
    version = publish(small_bundle, s3_prefix, Silent())
    store = open_store(Root(s3_prefix).version_uri(version))
    store.delete(["sparse/rows.npy", "documents.arrow"])
    result = fsck(s3_prefix)
    assert {f["file"] for f in result["findings"]} >= {"sparse/rows.npy", "documents.arrow"}
    assert fsck(s3_prefix, repair=True, healthy=small_bundle)["whole"]
    store.delete([NAME])
    assert fsck(s3_prefix, repair=True, healthy=small_bundle)["whole"]
    assert fsck(s3_prefix)["findings"] == []


def run_command(*arguments: object) -> tuple[int, str]:
    """`rag-indexer` in this process: its exit code, and what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_a_database_is_filled_and_followed(
    small_bundle: Path, tmp_path: Path, tiny_encoder: Path, encoder_cache: Path,
    database: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    arguments = ("--database", database.url, "--quiet")
    code, said = run_command("fsck", small_bundle, *arguments)
    assert code == 1
    assert "database: 3 of 3 passages are missing, as " in said
    code, said = run_command("fsck", small_bundle, *arguments, "--repair")
    assert code == 0
    assert "mended: database (3 rows written, 0 deleted)" in said
    assert ": 3 rows; all ids were compared, and the contents of 3" in said
    assert database.secret not in said
    changed = {**TEXTS, "ports.md": "# Ports\n\nNow it is 9090.\n", "new.md": "A new page.\n"}
    after = make(changed, tmp_path, tiny_encoder, encoder_cache)
    code, said = run_command("fsck", after, *arguments, "--json")
    assert code == 1
    problems = [finding["problem"] for finding in json.loads(said)["findings"]]
    assert "2 of 4 passages are missing" in problems[0]
    assert "1 rows are left over from other versions" in problems[1]
    code, said = run_command("fsck", after, *arguments, "--repair", "--json")
    assert code == 0
    result = json.loads(said)
    assert {k: v for k, v in result["database"].items() if k != "name"} == {
        "rows": 4, "compared": 4, "written": 2, "deleted": 1
    }  # fmt: skip
    assert run_command("fsck", after, *arguments)[0] == 0


def test_a_database_is_not_filled_from_a_damaged_bundle(
    copy: Path, small_bundle: Path, postgres: str
) -> None:
    flip("dense/index.faiss")(copy)
    opener = table_opener(f"{postgres}?table=from_damaged", {})
    given: dict[str, Any] = {"healthy": None, "sample": 8, "progress": Silent()}
    result = run_fsck(str(copy), None, repair=False, database=opener, **given)
    assert [f["part"] for f in result["findings"]] == ["dense", "database"]
    assert result["findings"][1]["problem"] == "not compared: mend the bundle's own rows first"
    assert not result["whole"]
    result = run_fsck(str(copy), None, repair=True, database=opener, **given)
    assert result["whole"]
    assert result["database"]["rows"] == 3


@pytest.mark.parametrize(
    ("url", "said"),
    [("mysql://host/db", "the scheme given is 'mysql'"), ("postgresql://host/db", "no table")],
)
def test_a_database_url_of_another_kind_is_one_line(
    url: str, said: str, small_bundle: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        run_command("fsck", small_bundle, "--database", url)


def test_a_document_is_explained(small_bundle: Path, tmp_path: Path, encoder_source: Path) -> None:
    long = tmp_path / "long.md"
    rows = "\n".join(f"| {n} | value {n} |" for n in range(60))
    text = "Sentence number one is here. " * 30
    long.write_text(
        f"# Guide\n\n{text}\n\n## Table\n\n| a | b |\n|--|--|\n{rows}\n\n## End\n\nOver.\n"
    )
    result = explain_file(long, bundle=None, doc_id=None, encoder="default", options={"size": 64})
    chunks = result["chunks"]
    assert all(chunk["text_tokens"] <= 64 for chunk in chunks)
    reasons = {chunk["ends_because"] for chunk in chunks}
    assert "the limit is near: inside a paragraph, between sentences" in reasons
    assert "the limit is near: inside a table, between rows" in reasons
    assert "the section ends" in reasons
    assert chunks[-1]["ends_because"] == "the document ends"
    assert ["Guide", "Table"] in [chunk["headings"] for chunk in chunks]
    documents = small_bundle.parent / "documents"
    held = explain_file(
        documents / "휴가.md", bundle=str(small_bundle), doc_id=None, encoder="default", options={}
    )
    assert [chunk["in_bundle"] for chunk in held["chunks"]] == [True]


def test_a_difference_names_documents_passages_and_settings(
    small_bundle: Path, tmp_path: Path, tiny_encoder: Path, encoder_cache: Path
) -> None:
    changed = {**TEXTS, "ports.md": "# Ports\n\nNow it is 9090.\n", "new.md": "A new page.\n"}
    del changed["stop.md"]
    after = make(changed, tmp_path, tiny_encoder, encoder_cache, sparse={"k1": 1.2})
    result = difference(open_side(str(small_bundle), tmp_path), open_side(str(after), tmp_path))
    documents = result["documents"]
    assert documents["added"] == ["new.md"]
    assert documents["deleted"] == ["stop.md"]
    assert set(documents["changed"]) == {"ports.md"}
    assert documents["changed"]["ports.md"]["what"] == ["content"]
    assert result["chunks"] == {"before": 3, "after": 3, "added": 2, "removed": 2, "kept": 1}
    assert result["settings"] == {"sparse.k1": [1.5, 1.2]}
    json.dumps(result)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_row_of_a_corpus_is_explained(
    ending: str, tmp_path: Path, tiny_options: BuildOptions
) -> None:
    rows = [
        {"key": f"r{n}", "name": f"Row {n}", "said": f"Pump {n} is primed.", "team": "a"}
        for n in range(3)
    ]
    folder = tmp_path / "corpus"
    folder.mkdir()
    path = folder / f"rows.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"key": "empty"}]))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    columns = CorpusColumns("said", "key", "name", ("team",))
    bundle = build(Source(str(folder), columns=columns), tmp_path / "bundle", tiny_options).folder
    result = explain_file(
        path, bundle=str(bundle), doc_id="r1", encoder="default", options={}, columns=columns
    )
    assert result["document"]["title"] == "Row 1"
    assert result["document"]["metadata"] == {"team": "a"}
    assert [chunk["text"] for chunk in result["chunks"]] == ["Pump 1 is primed."]
    assert [chunk["in_bundle"] for chunk in result["chunks"]] == [True]
    given: dict[str, Any] = {"bundle": None, "encoder": "default", "options": {}}
    with pytest.raises(ConfigurationError, match="no row 'r9'"):
        explain_file(path, doc_id="r9", columns=columns, **given)
    with pytest.raises(ConfigurationError, match="--doc-id"):
        explain_file(path, doc_id=None, columns=columns, **given)
    if ending == "jsonl":
        with pytest.raises(UnreadableDocument, match="empty: row 4 has no text in 'said'"):
            explain_file(path, doc_id="empty", columns=columns, **given)
