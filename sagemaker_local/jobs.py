"""Training and processing jobs: containers that read, write and end."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagemaker_local.engine import Container, Engine
from sagemaker_local.hosting import FLAGS
from sagemaker_local.layout import (
    Hyperparameters,
    ProcessingFolders,
    TrainingFolders,
    links,
    pack_model,
)

TRAINING_GRACE_S = 120
"""Seconds between SIGTERM and SIGKILL of a training job that is stopped."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended: `reason` is what the platform would show of its failure."""

    exit_code: int
    log: str
    reason: str | None


class Host:
    """One host of a training job."""

    def __init__(self, folders: TrainingFolders, container: Container) -> None:
        self.folders = folders
        self.container = container

    def end(self, timeout_s: float = 3600) -> Ended:
        """What became of it, once it has ended."""
        return self._ended(self.container.wait(timeout_s))

    def stop(self) -> Ended:
        """SIGTERM, SIGKILL 120 seconds later."""
        return self._ended(self.container.stop(TRAINING_GRACE_S))

    def _ended(self, code: int) -> Ended:
        return Ended(code, self.container.logs(), self.folders.failure)


@contextlib.contextmanager
def training(
    engine: Engine,
    image: str,
    work: Path,
    *,
    hyperparameters: Hyperparameters,
    channels: Sequence[Mapping[str, Path]],
    environment: Mapping[str, str] | None = None,
    input_mode: str = "File",
    flags: Sequence[str] = (),
) -> Iterator[list[Host]]:
    """A running job with as many hosts as there are `channels`: of each host, name to folder.

    `work` gets a folder a host; what an earlier run left in its checkpoints is found again.
    Several hosts know each other by name, on a network of their own. Containers and network are
    gone at the end.
    """
    names = [f"algo-{number}" for number in range(1, len(channels) + 1)]
    job = {
        "TRAINING_JOB_NAME": "local",
        "TRAINING_JOB_ARN": "arn:aws:sagemaker:local:0:training-job/local",
        "AWS_REGION": "us-east-1",
    }
    hosts: list[Host] = []
    with _network(engine, names) as network:
        try:
            for name, own in zip(names, channels, strict=True):
                folders = TrainingFolders(work / name, name)
                folders.configure(
                    hyperparameters, own, names, input_mode=input_mode,
                    distribution="FullyReplicated" if len(names) == 1 else "ShardedByS3Key",
                )  # fmt: skip
                container = engine.start(
                    image, ["train"], mounts=folders.mounts(own),
                    environment=job | dict(environment or {}),
                    flags=[*FLAGS, *flags, *network.get(name, ())],
                )  # fmt: skip
                hosts.append(Host(folders, container))
            yield hosts
        finally:
            for host in hosts:
                host.container.remove()


@contextlib.contextmanager
def _network(engine: Engine, names: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    """The flags that put each host on one network, where every name is known; none for one host."""
    if len(names) == 1:
        yield {}
        return
    made = f"sagemaker-local-{uuid.uuid4().hex[:12]}"
    subnet = f"10.{random.randrange(100, 250)}.{random.randrange(250)}"  # noqa: S311 - no secret
    engine.call("network", "create", "--subnet", f"{subnet}.0/24", made)
    addresses = {name: f"{subnet}.{number}" for number, name in enumerate(names, 11)}
    known = [word for n, ip in addresses.items() for word in ("--add-host", f"{n}:{ip}")]
    try:
        yield {
            name: ["--network", made, "--ip", ip, "--hostname", name, *known]
            for name, ip in addresses.items()
        }
    finally:
        engine.run("network", "rm", made)


def model_archive(hosts: Sequence[Host], archive: Path, work: Path) -> list[str]:
    """The one model.tar.gz of all hosts; returns names that clash or are links (none is right)."""
    problems: list[str] = []
    merged = work / "merged"
    for host in hosts:
        problems += links(host.folders.model)
        for path in sorted(p for p in host.folders.model.rglob("*") if p.is_file()):
            target = merged / path.relative_to(host.folders.model)
            if target.exists():
                problems.append(str(path.relative_to(host.folders.model)))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    merged.mkdir(parents=True, exist_ok=True)
    pack_model(merged, archive)
    return problems


def process(
    engine: Engine,
    image: str,
    work: Path,
    *,
    arguments: Sequence[str],
    inputs: Mapping[str, Path],
    outputs: Sequence[str],
    environment: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> tuple[Ended, ProcessingFolders]:
    """Runs a processing job to its end."""
    folders = ProcessingFolders(work)
    folders.configure(arguments, environment or {}, list(inputs), outputs)
    container = engine.start(
        image, arguments, mounts=folders.mounts(inputs, outputs), environment=environment,
        flags=[*FLAGS, *flags],
    )  # fmt: skip
    try:
        code = container.wait()
        return Ended(code, container.logs(), folders.message), folders
    finally:
        container.remove()
