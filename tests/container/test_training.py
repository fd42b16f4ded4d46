"""Checklist, Training: the indexer's image as a training job."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.jobs import Ended, Host, model_archive, training
from sagemaker_local.layout import extract_model, links

Train = Callable[..., contextlib.AbstractContextManager[list[Host]]]


@pytest.fixture
def train(engine: Any, indexer: str, documents: Path, tmp_path: Path) -> Train:
    """`with train(chunk_size="64") as hosts:` a job over the documents, without any network."""

    @contextlib.contextmanager
    def start(
        *channels: Mapping[str, Path], work: Path = tmp_path, input_mode: str = "File", **given: Any
    ) -> Iterator[list[Host]]:
        chosen = channels or ({"documents": documents},)
        flags = ["--network", "none"] if len(chosen) == 1 else []
        with training(
            engine, indexer, work, hyperparameters=given, channels=chosen, input_mode=input_mode,
            flags=flags,
        ) as hosts:  # fmt: skip
            yield hosts

    return start


def manifest(host: Host) -> dict[str, Any]:
    found = json.loads((host.folders.model / "manifest.json").read_bytes())
    assert isinstance(found, dict)
    return found


def succeeded(ended: Ended) -> None:
    assert ended.exit_code == 0, ended.log
    assert ended.reason is None


def test_item_31_hyperparameter_strings_parse(train: Train) -> None:
    given = {"chunk_size": 64, "analyzer": '"english"', "safetensors": False, "strict": "true"}
    with train(**given) as (host,):
        succeeded(host.end())
        made = manifest(host)
    assert made["chunker"]["size"] == 64
    assert "safetensors" not in " ".join(made["files"])


def test_item_31_an_unknown_hyperparameter_is_named(train: Train) -> None:
    with train(chunk_sise=64) as (host,):
        ended = host.end()
    assert ended.exit_code != 0
    assert ended.reason is not None
    assert "chunk_sise" in ended.reason


def test_item_32_read_only_nested_empty_and_unicode_named_files(
    train: Train, documents: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "documents"
    shutil.copytree(documents, folder)
    deep = folder / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "깊은 문서 ✓.md").write_text("# 깊은 문서\n\n여기에 글이 있습니다.", encoding="utf-8")
    (folder / "empty.md").touch()
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with train({"documents": folder}, work=tmp_path / "job") as (host,):
        succeeded(host.end())
        assert manifest(host)["counts"]["documents"] == 5
        report = json.loads((host.folders.model / "report.json").read_bytes())
    assert [skipped["doc_id"] for skipped in report["skipped"]] == ["empty.md"]


def test_item_33_a_failure_says_its_cause_first(train: Train, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with train({"documents": empty}, work=tmp_path / "job") as (host,):
        ended = host.end()
    assert ended.exit_code != 0
    assert ended.reason
    assert "Traceback" not in ended.reason.splitlines()[0]


def test_item_34_the_archive_of_a_success_serves(train: Train, serve: Any, tmp_path: Path) -> None:
    with train() as hosts:
        succeeded(hosts[0].end())
        assert links(hosts[0].folders.model) == []
        assert model_archive(hosts, tmp_path / "model.tar.gz", tmp_path / "pack") == []
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        assert all(member.isfile() or member.isdir() for member in tar)
    extract_model(tmp_path / "model.tar.gz", tmp_path / "deployed")
    with serve(tmp_path / "deployed") as service:
        assert service.ask("연차 휴가").json()["passages"][0]["doc_id"] == "ko/휴가.md"


def test_item_35_sigterm_in_mid_build_and_the_restart_gives_the_same_bundle(
    train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    words = ["lamp", "kettle", "garden", "bicycle", "roses", "chain", "tyre", "vinegar", "water"]
    for number in range(400):
        lines = [
            f"{words[(number + i) % 9]} {number} {words[(number * i) % 9]} {i}." for i in range(60)
        ]
        (folder / f"{number}.md").write_text(f"# Part {number}\n\n" + "\n\n".join(lines))
    with train({"documents": folder}, work=tmp_path / "job", safetensors=False) as (host,):
        while "embed" not in host.container.logs():
            assert host.container.running, host.container.logs()
            time.sleep(0.1)
        stopped = host.stop()
    # 137 would mean that it was killed, 120 seconds after SIGTERM.
    assert stopped.exit_code not in (0, 137), stopped.log
    shutil.rmtree(tmp_path / "job" / "algo-1" / "model")
    (tmp_path / "job" / "algo-1" / "output" / "failure").unlink(missing_ok=True)
    with train({"documents": folder}, work=tmp_path / "job", safetensors=False) as (host,):
        succeeded(host.end())
        again = manifest(host)
    with train({"documents": folder}, work=tmp_path / "other", safetensors=False) as (host,):
        succeeded(host.end())
        whole = manifest(host)
    assert again["version"] == whole["version"]
    sparse = {name for name in whole["files"] if name.startswith("sparse/")}
    assert {n: again["files"][n] for n in sparse} == {n: whole["files"][n] for n in sparse}


def test_item_36_two_hosts_one_with_an_empty_share(
    train: Train, documents: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for number, shares in enumerate(((documents, empty), (empty, documents))):
        work = tmp_path / f"job-{number}"
        with train(*({"documents": share} for share in shares), work=work) as hosts:
            for host in hosts:
                succeeded(host.end())
            assert model_archive(hosts, work / "model.tar.gz", work / "pack") == []
        extract_model(work / "model.tar.gz", work / "deployed")
        made = json.loads((work / "deployed" / "manifest.json").read_bytes())
        assert made["counts"]["documents"] == 4


def test_item_37_pipe_mode_is_refused_clearly(train: Train) -> None:
    with train(input_mode="Pipe") as (host,):
        ended = host.end()
    assert ended.exit_code != 0
    assert ended.reason is not None
    assert "Pipe" in ended.reason
    assert "File" in ended.reason


def test_metrics_are_read_off_the_log(engine: Any, indexer: str, train: Train) -> None:
    import re

    definitions = json.loads(engine.call("run", "--rm", indexer, "metrics"))
    with train() as (host,):
        ended = host.end()
    found = {d["Name"]: re.findall(d["Regex"], ended.log) for d in definitions}
    assert 0 < len(definitions) <= 40
    assert float(found["documents"][0]) == 4
