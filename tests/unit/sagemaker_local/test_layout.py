"""What the runner lays out is what the platform does."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from sagemaker_local.errors import InvalidInput
from sagemaker_local.layout import (
    ProcessingFolders,
    TrainingFolders,
    extract_model,
    hyperparameter_strings,
    links,
    pack_model,
)


def test_hyperparameters_are_strings_with_json_inside() -> None:
    given = {"size": 5, "name": "x", "on": True, "list": [1, "a"]}
    assert hyperparameter_strings(given) == {
        "size": "5", "name": "x", "on": "true", "list": '[1, "a"]',
    }  # fmt: skip


def test_training_files_and_mounts(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    folders = TrainingFolders(tmp_path / "job", "algo-2")
    folders.configure({"size": 5}, {"documents": documents}, ["algo-2", "algo-1"])
    config = tmp_path / "job" / "input" / "config"
    assert json.loads((config / "hyperparameters.json").read_text()) == {"size": "5"}
    resources = json.loads((config / "resourceconfig.json").read_text())
    assert (resources["current_host"], resources["hosts"]) == ("algo-2", ["algo-1", "algo-2"])
    stated = json.loads((config / "inputdataconfig.json").read_text())
    assert stated["documents"]["TrainingInputMode"] == "File"
    mounts = {m.target: m.read_only for m in folders.mounts({"documents": documents})}
    assert mounts["/opt/ml/input/data/documents"] is True
    assert mounts["/opt/ml/model"] is False


def test_failure_is_cut_where_the_platform_cuts(tmp_path: Path) -> None:
    folders = TrainingFolders(tmp_path, "algo-1")
    assert folders.failure is None
    (tmp_path / "output" / "failure").write_text("가" * 2000, encoding="utf-8")
    assert folders.failure == "가" * 1024


def test_processing_outputs_exist_and_message_is_cut(tmp_path: Path) -> None:
    folders = ProcessingFolders(tmp_path)
    folders.configure(["process"], {}, ["documents"], ["bundle"])
    assert folders.output("bundle").is_dir()
    mounts = folders.mounts({"documents": tmp_path}, ["bundle"])
    assert "/opt/ml/processing/output/bundle" in [m.target for m in mounts]
    (tmp_path / "messages" / "message").write_bytes(b"x" * 3000)
    assert folders.message == "x" * 1024


def test_a_model_archive_comes_back_as_it_went(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "한글").mkdir(parents=True)
    (model / "한글" / "a").write_text("b")
    pack_model(model, tmp_path / "model.tar.gz")
    extract_model(tmp_path / "model.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "한글" / "a").read_text() == "b"
    (model / "link").symlink_to("한글")
    assert links(model) == ["link"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_an_archive_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("evil")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member, io.BytesIO())
    with pytest.raises(InvalidInput, match="evil"):
        extract_model(tmp_path / "m.tar.gz", tmp_path / "out")
