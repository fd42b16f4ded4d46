"""A bundle that is not exactly what its manifest says is refused, by the name of the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag.errors import (
    BundleCorrupt,
    BundleError,
    BundleMissing,
    BundleMixed,
    BundleTooNew,
    ObjectNotFound,
)
from rag.index.bundle import Bundle, open_bundle
from rag.index.fetching import fetch, locate
from rag.index.manifest import NAME, canonical, parse
from rag.index.pointer import CURRENT, current_version
from rag.index.seal import read_manifest
from rag.types import NO_ROW

FILES = [
    "chunks.arrow",
    "documents.arrow",
    "dense/index.faiss",
    "sparse/rows.npy",
    "encoder/onnx/model_int8.onnx",
    "encoder/tokenizer.json",
]


@pytest.fixture
def copy(sample_bundle: Path, tmp_path: Path) -> Path:
    """A copy that tests may break; big files are shared with the original until replaced."""
    return Path(shutil.copytree(sample_bundle, tmp_path / "copy", copy_function=_link))


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(copy: Path, name: str) -> None:
    rewrite(copy / name, (copy / name).read_bytes()[:-1])
    with pytest.raises(BundleCorrupt, match=rf"{name} is truncated"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(copy / name, bytes(data))
    with pytest.raises(BundleCorrupt, match=rf"{name} was altered"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleMissing, match=name):
        Bundle.open(copy)


def test_a_symbolic_link_is_refused(copy: Path) -> None:
    target = copy.parent / "elsewhere"
    (copy / "report.json").rename(target)
    (copy / "report.json").symlink_to(target)
    with pytest.raises(BundleCorrupt, match=r"report\.json is a symbolic link"):
        Bundle.open(copy)


def test_a_newer_format_is_refused(copy: Path) -> None:
    raw = json.loads((copy / NAME).read_bytes())
    rewrite(copy / NAME, canonical(raw | {"format": 99, "unheard_of": 1}))
    with pytest.raises(BundleTooNew, match="format 99"):
        Bundle.open(copy)


@pytest.mark.parametrize("change", [{"chunker": {}}, {"version": "0" * 32}, {"files": 3}])
def test_an_altered_manifest_is_refused(copy: Path, change: dict[str, object]) -> None:
    raw = json.loads((copy / NAME).read_bytes())
    rewrite(copy / NAME, canonical(raw | change))
    with pytest.raises(BundleCorrupt, match=NAME):
        Bundle.open(copy)


def test_a_manifest_that_is_not_json_is_refused(copy: Path) -> None:
    rewrite(copy / NAME, b"{")
    with pytest.raises(BundleCorrupt, match="not JSON"):
        Bundle.open(copy)


def test_legs_of_two_generations_are_refused(copy: Path) -> None:
    """Even where somebody made the checksums fit."""
    import faiss

    from rag.index.seal import inventory

    index = faiss.read_index(str(copy / "dense" / "index.faiss"))
    index.add(np.ones((1, index.d), dtype=np.float32))
    (copy / "dense" / "index.faiss").unlink()
    faiss.write_index(index, str(copy / "dense" / "index.faiss"))
    raw = json.loads((copy / NAME).read_bytes())
    files = {n: {"size": e.size, "sha256": e.sha256} for n, e in inventory(copy).items()}
    rewrite(copy / NAME, canonical(raw | {"files": files}))
    with pytest.raises(BundleMixed, match="disagree"):
        Bundle.open(copy)


def test_every_refusal_is_one_line(copy: Path) -> None:
    (copy / NAME).unlink()
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert "\n" not in str(caught.value)


def test_the_manifest_reads_back(sample_bundle: Path) -> None:
    manifest = read_manifest(sample_bundle)
    assert parse(manifest.to_bytes(), "x") == manifest
    assert manifest.counts["chunks"] == Bundle.open(sample_bundle, verify=False).store.rows
    assert manifest.encoder["prompts"] == {"query": "", "passage": ""}


def test_a_root_leads_to_its_current_version(sample_bundle: Path, tmp_path: Path) -> None:
    version = read_manifest(sample_bundle).version
    shutil.copytree(sample_bundle, tmp_path / "versions" / version, copy_function=_link)
    (tmp_path / CURRENT).write_bytes(canonical({"version": version}))
    assert locate(str(tmp_path)).name == version
    assert open_bundle(str(tmp_path), verify=False).manifest.version == version


@pytest.mark.parametrize("pointer", [b"", b"{}", b'{"version": "../../etc"}', b"[1]"])
def test_a_bad_pointer_is_refused(pointer: bytes) -> None:
    with pytest.raises(BundleCorrupt, match=CURRENT):
        current_version(pointer, "somewhere")


def test_of_a_copy_that_fails_nothing_is_left(copy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    missing = next(path for path in copy.rglob("*") if path.suffix == ".faiss")
    missing.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(ObjectNotFound, match="faiss"):
            fetch(str(copy), cache)
        assert list(cache.iterdir()) == []
    (tmp_path / "elsewhere").rename(missing)
    assert (fetch(str(copy), cache) / "manifest.json").is_file()
    assert len(list(cache.iterdir())) == 1


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="rag-indexer build"):
        open_bundle(str(tmp_path / "nothing"))
    with pytest.raises(BundleMissing, match=NAME):
        open_bundle(str(tmp_path))


def test_padding_never_becomes_a_passage(sample_bundle: Path) -> None:
    bundle = Bundle.open(sample_bundle, verify=False)
    with pytest.raises(IndexError):
        bundle.chunks(np.array([NO_ROW]))
