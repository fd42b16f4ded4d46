"""Checklist, Processing: the indexer's image as a processing job, and as plain `docker run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.engine import Mount
from sagemaker_local.hosting import FLAGS
from sagemaker_local.jobs import process
from sagemaker_local.layout import links

OFFLINE = ("--network", "none")


@pytest.mark.parametrize("verb", [["process"], []])
def test_item_38_arguments_and_config_are_read_and_outputs_are_real_files(
    engine: Any, indexer: str, documents: Path, tmp_path: Path, verb: list[str], serve: Any
) -> None:
    ended, folders = process(
        engine, indexer, tmp_path, arguments=[*verb, "--chunk-size", "64"],
        inputs={"documents": documents}, outputs=["bundle"], flags=OFFLINE,
    )  # fmt: skip
    assert ended.exit_code == 0, ended.log
    output = folders.output("bundle")
    made = json.loads((output / "manifest.json").read_bytes())
    assert made["chunker"]["size"] == 64
    assert links(output) == []
    assert all((output / name).is_file() for name in made["files"])
    with serve(output) as service:
        assert service.ask().json()["passages"][0]["doc_id"] == "en/lamp.md"


def test_item_39_a_failure_is_an_exit_code_and_a_short_message(
    engine: Any, indexer: str, tmp_path: Path
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(60):
        (documents / f"{'깊은-이름-' * 5}{number}.pdf").write_bytes(b"no pdf")
    ended, folders = process(
        engine, indexer, tmp_path / "job", arguments=["process"], inputs={"documents": documents},
        outputs=["bundle"], flags=OFFLINE,
    )  # fmt: skip
    assert ended.exit_code != 0
    assert ended.reason
    raw = (folders.root / "messages" / "message").read_bytes()
    assert len(raw) <= 1024
    raw.decode("utf-8")


def test_item_40_plain_run_with_flags_works_without_opt_ml(
    engine: Any, indexer: str, documents: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    container = engine.start(
        indexer, ["build", "--source", "/in", "--output", "/out", "--json", "--quiet"],
        mounts=[Mount(documents, "/in", read_only=True), Mount(tmp_path, "/out")],
        flags=[*FLAGS, *OFFLINE, "--user", "12345:23456"],
    )  # fmt: skip
    try:
        assert container.wait() == 0, container.logs()
        said = json.loads(container.logs().splitlines()[-1])
        assert "/opt/ml" not in container.engine.call("diff", container.name)
    finally:
        container.remove()
    current = json.loads((tmp_path / "CURRENT").read_bytes())["version"]
    assert current == said["version"]
    assert said["documents"] == 4
