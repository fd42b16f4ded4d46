"""The checklist of the training and processing contracts, over a laid-out /opt/ml, with real
processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer.commands.build import CONTEXT, check_variables, command, flags
from indexer.metric_lines import METRICS, definitions
from indexer.sagemaker import Layout, as_arguments, documents_channel, take
from rag.errors import ConfigurationError
from rag.index.bundle import Bundle
from rag.index.fetching import locate
from rag.index.root import Root

PAGE = "# Ports\n\nThe container listens on port 8080 for pings and invocations.\n"


class Job:
    """A laid-out /opt/ml, and the verb run on it."""

    def __init__(self, root: Path, encoder: Path, encoder_cache: Path) -> None:
        self.root = root
        self.documents = root / "input/data/documents"
        (root / "input/config").mkdir(parents=True)
        self.documents.mkdir(parents=True)
        (root / "model").mkdir()
        self.hyperparameters: dict[str, str] = {
            "encoder": str(encoder), "encoder_cache": str(encoder_cache), "workers": "1",
        }  # fmt: skip
        self.channel: dict[str, str] = {"TrainingInputMode": "File"}
        self.hosts: dict[str, Any] = {"current_host": "algo-1", "hosts": ["algo-1"]}

    def lay_out(self) -> None:
        for name, value in {
            "hyperparameters": self.hyperparameters,
            "inputdataconfig": {"documents": self.channel},
            "resourceconfig": self.hosts,
        }.items():
            (self.root / "input/config" / f"{name}.json").write_text(json.dumps(value))

    def start(self, verb: str = "train", *arguments: str) -> subprocess.Popen[str]:
        self.lay_out()
        command = [sys.executable, "-m", "indexer", verb, "--root", str(self.root), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, verb: str = "train", *arguments: str) -> tuple[int, str, str]:
        process = self.start(verb, *arguments)
        said, error = process.communicate(timeout=300)
        return process.returncode, said, error

    def failure(self) -> str:
        return (self.root / "output/failure").read_text(encoding="utf-8")


@pytest.fixture
def job(tmp_path: Path, tiny_encoder: Path, encoder_cache: Path) -> Job:
    job = Job(tmp_path / "ml", tiny_encoder, encoder_cache)
    (job.documents / "ports.md").write_text(PAGE, encoding="utf-8")
    return job


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"chunk_size": "5"}, ["--chunk-size", "5"]),
        ({"chunk-size": '"5"'}, ["--chunk-size", "5"]),
        ({"strict": "true"}, ["--strict"]),
        ({"strict": "false"}, []),
        ({"safetensors": "false"}, ["--no-safetensors"]),
        ({"encoder": '"x"'}, ["--encoder", "x"]),
        ({"encoder": "1e5"}, ["--encoder", "1e5"]),
        ({"include": '["*.md", "*.txt"]'}, ["--include", "*.md", "--include", "*.txt"]),
        ({"fusion": '{"method": "rrf"}'}, ["--fusion", '{"method": "rrf"}']),
        ({"k1": "null"}, []),
    ],
)
def test_item_31_hyperparameters_are_the_flags(
    given: dict[str, str], arguments: Sequence[str]
) -> None:
    assert as_arguments(given, flags()) == arguments


def test_item_31_a_wrong_hyperparameter_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"chunck_size.*did you mean 'chunk_size'"):
        as_arguments({"chunck_size": "5"}, flags())
    with pytest.raises(ConfigurationError, match="true or false"):
        as_arguments({"strict": "perhaps"}, flags())


def test_item_31_what_the_job_itself_reads_is_spelled_alike() -> None:
    given = {"publish-to": '"s3://bucket/index"', "channel": "pages", "k1": "2", "encoder": "null"}
    assert take(given, "publish_to") == "s3://bucket/index"
    assert take(given, "channel") == "pages"
    assert take(given, "encoder") is None
    assert take(given, "source") is None
    assert given == {"k1": "2"}
    assert take(given, "k1") == "2"


def test_item_40_every_option_is_also_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_INDEXER_CHUNK_SIZE", "77")
    monkeypatch.setenv("RAG_INDEXER_STRICT", "true")
    given = command().make_context("build", ["--source", "a", "--output", "b"], **CONTEXT).params
    assert (given["chunk_size"], given["strict"]) == (77, True)
    check_variables({"RAG_INDEXER_CHUNK_SIZE": "77", "RAG_PORT": "1"})
    with pytest.raises(ConfigurationError, match="did you mean RAG_INDEXER_CHUNK_SIZE"):
        check_variables({"RAG_INDEXER_CHUNKSIZE": "77"})


def test_items_32_and_34_a_read_only_input_gives_a_model_that_serves(
    job: Job, tmp_path: Path
) -> None:
    deep = job.documents / "깊은 곳/더 깊은"
    deep.mkdir(parents=True)
    (deep / "문서 1.md").write_text(
        "# 제목\n\n컨테이너는 8080 포트에서 듣는다.\n", encoding="utf-8"
    )
    (job.documents / "empty.txt").write_text("")
    job.hyperparameters |= {"sagemaker_program": '"x.py"', "chunk_size": '"40"'}
    for folder in (deep, deep.parent, job.documents):
        folder.chmod(0o555)
    code, said, error = job.run()
    assert code == 0, error
    model = job.root / "model"
    assert not [path for path in model.rglob("*") if path.is_symlink()]
    for definition in definitions():
        assert re.search(definition["Regex"], said), definition["Name"]
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(model, arcname=".")
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "served", filter="data")
    bundle = Bundle.open(tmp_path / "served")
    assert bundle.manifest.counts["documents"] == 2
    assert bundle.manifest.counts["skipped"] == 1
    assert not (job.root / "output/failure").exists()


def test_publish_to_puts_the_model_at_a_root_as_well(job: Job, tmp_path: Path) -> None:
    root = tmp_path / "root"
    job.hyperparameters["publish_to"] = json.dumps(str(root))
    code, _, error = job.run()
    assert code == 0, error
    pointer = Root(str(root)).current()
    assert pointer is not None
    assert pointer.version == Bundle.open(job.root / "model").manifest.version
    assert Bundle.open(locate(str(root)), verify=True).manifest.version == pointer.version


def test_publish_to_that_cannot_be_written_fails_the_job(job: Job, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    job.hyperparameters["publish_to"] = json.dumps(str(tmp_path / "taken"))
    code, _, _ = job.run()
    assert code != 0
    assert "taken" in job.failure().splitlines()[0]


def test_item_33_a_failure_says_its_cause_first(job: Job) -> None:
    job.hyperparameters["chunk_size"] = "many"
    code, _, error = job.run()
    assert code == 1
    assert "chunk-size" in job.failure()[:1024]
    assert "Traceback" not in error
    job.hyperparameters["chunk_size"] = "40"
    shutil.rmtree(job.documents)
    job.documents.mkdir()
    assert job.run()[0] == 1
    assert "holds no documents" in job.failure()


def test_item_35_sigterm_leaves_a_checkpoint_that_the_restart_goes_on_from(
    job: Job, tmp_path: Path, tiny_encoder: Path, encoder_cache: Path
) -> None:
    for number in range(300):
        text = f"# Pump {number}\n\n" + f"Pump {number} is primed. " * 40
        (job.documents / f"{number}.md").write_text(text, encoding="utf-8")
    (job.root / "checkpoints").mkdir()
    process = job.start()
    assert process.stderr is not None
    for line in process.stderr:
        if "read and chunk" in line:
            break
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert time.monotonic() - started < 120
    assert process.returncode != 0
    assert "stopped" in job.failure()
    shutil.rmtree(job.root / "model")  # the restart is another container
    (job.root / "model").mkdir()
    assert job.run()[0] == 0
    whole = Job(tmp_path / "whole", tiny_encoder, encoder_cache)
    shutil.copytree(job.documents, whole.documents, dirs_exist_ok=True)
    assert whole.run()[0] == 0
    restarted, at_once = (Bundle.open(j.root / "model").manifest for j in (job, whole))
    assert restarted.version == at_once.version
    assert restarted.chunks_digest == at_once.chunks_digest


def test_item_36_two_hosts_one_with_an_empty_shard_make_one_bundle(
    job: Job, tmp_path: Path, tiny_encoder: Path, encoder_cache: Path
) -> None:
    """Two addresses of this machine stand for the hosts; each has a folder of its own."""
    other = Job(tmp_path / "other", tiny_encoder, encoder_cache)
    hosts = ["127.0.0.1", "127.0.0.2"]
    for place, host in ((other, hosts[0]), (job, hosts[1])):
        place.hosts = {"current_host": host, "hosts": hosts}
        place.channel["S3DistributionType"] = "ShardedByS3Key"
    handing = job.start()
    code, _, error = other.run()
    assert code == 0, error
    assert handing.wait(30) == 0
    assert os.listdir(job.root / "model") == []
    assert Bundle.open(other.root / "model").manifest.counts["documents"] == 1


def test_item_37_pipe_mode_is_refused(job: Job) -> None:
    job.channel["TrainingInputMode"] = "Pipe"
    assert job.run()[0] == 1
    assert "Pipe" in job.failure()
    assert "FastFile" in job.failure()


def test_items_38_and_39_processing(job: Job, tmp_path: Path) -> None:
    inputs = [
        {"InputName": "documents", "S3Input": {"LocalPath": str(job.documents)}},
        {"InputName": "code", "S3Input": {"LocalPath": str(tmp_path)}},
    ]
    output = {"OutputName": "bundle", "S3Output": {"LocalPath": str(tmp_path / "out")}}
    (tmp_path / "out").mkdir()
    (job.root / "config").mkdir()
    (job.root / "config/processingjobconfig.json").write_text(
        json.dumps({"ProcessingInputs": inputs, "ProcessingOutputConfig": {"Outputs": [output]}})
    )
    arguments = [f"--{name.replace('_', '-')}={v}" for name, v in job.hyperparameters.items()]
    code, said, error = job.run("process", *arguments)
    assert code == 0, error
    assert "metric chunks=1;" in said
    assert Bundle.open(tmp_path / "out").manifest.counts["documents"] == 1
    code, _, _ = job.run("process", "--chunk-size", "x" * 3000)
    message = (job.root / "output/message").read_bytes()
    assert code == 1
    assert b"chunk-size" in message
    assert len(message) <= 1024


def test_the_documents_channel_is_found_or_asked_for(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name in ("encoder", "train"):
        (tmp_path / "input/data" / name).mkdir(parents=True)
    assert documents_channel(layout.channels(), None).name == "train"
    with pytest.raises(ConfigurationError, match=r"no channel 'corpus' \(it has: encoder, train\)"):
        documents_channel(layout.channels(), "corpus")


def test_metrics_fit_the_platform() -> None:
    assert len(METRICS) <= 40
    assert all(len(d["Regex"]) <= 500 for d in definitions())
