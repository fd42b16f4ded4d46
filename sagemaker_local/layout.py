"""The files of /opt/ml as the platform lays them out, in a folder of this machine."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sagemaker_local.engine import Mount
from sagemaker_local.errors import InvalidInput

ML = "/opt/ml"
Hyperparameters = Mapping[str, object]


def extract_model(archive: Path, folder: Path) -> None:
    """Unpacks a model.tar.gz as hosting does; links and paths that lead outside are refused."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            place = folder / member.name
            outside = Path(member.name).is_absolute() or ".." in place.parts
            if not (member.isfile() or member.isdir()) or outside:
                raise InvalidInput(f"{archive} holds {member.name}, which is no file and no folder")
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            content = tar.extractfile(member)
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                with place.open("wb") as out:
                    shutil.copyfileobj(content, out)


def pack_model(folder: Path, archive: Path) -> None:
    """Makes the model.tar.gz of a training job from what it left in /opt/ml/model."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)


def links(folder: Path) -> list[str]:
    """Symbolic links below `folder`, which the platform does not upload."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink())


def hyperparameter_strings(given: Hyperparameters) -> dict[str, str]:
    """Every value as the string that the platform passes: text as it is, the rest as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}


class TrainingFolders:
    """What one host of a training job finds below /opt/ml, and what it leaves there."""

    def __init__(self, root: Path, host: str) -> None:
        self.root = root
        self.host = host
        self.model = root / "model"
        self.output = root / "output"
        self.checkpoints = root / "checkpoints"
        self._config = root / "input" / "config"
        for folder in (self.model, self.output / "data", self.checkpoints, self._config):
            folder.mkdir(parents=True, exist_ok=True)

    def configure(
        self,
        hyperparameters: Hyperparameters,
        channels: Mapping[str, Path],
        hosts: Sequence[str],
        *,
        input_mode: str = "File",
        distribution: str = "FullyReplicated",
    ) -> None:
        """Writes hyperparameters.json, inputdataconfig.json and resourceconfig.json."""
        channel = {
            "TrainingInputMode": input_mode,
            "S3DistributionType": distribution,
            "RecordWrapperType": "None",
        }
        self._write("hyperparameters.json", hyperparameter_strings(hyperparameters))
        self._write("inputdataconfig.json", dict.fromkeys(channels, channel))
        resources = {
            "current_host": self.host,
            "hosts": sorted(hosts),
            "network_interface_name": "eth0",
        }
        self._write("resourceconfig.json", resources)

    def mounts(self, channels: Mapping[str, Path]) -> list[Mount]:
        """Everything at its place; the channels can only be read."""
        own = [
            Mount(self.model, f"{ML}/model"),
            Mount(self.output, f"{ML}/output"),
            Mount(self.checkpoints, f"{ML}/checkpoints"),
            Mount(self._config, f"{ML}/input/config", read_only=True),
        ]
        return own + [
            Mount(folder, f"{ML}/input/data/{name}", read_only=True)
            for name, folder in channels.items()
        ]

    @property
    def failure(self) -> str | None:
        """The first 1,024 characters of /opt/ml/output/failure, all that the platform shows."""
        path = self.output / "failure"
        return path.read_text(encoding="utf-8")[:1024] if path.exists() else None

    def _write(self, name: str, value: Any) -> None:
        (self._config / name).write_text(json.dumps(value), encoding="utf-8")


class ProcessingFolders:
    """What a processing job finds below /opt/ml, and what it leaves there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._config = root / "config"
        self._output = root / "output"
        for folder in (self._config, self._output):
            folder.mkdir(parents=True, exist_ok=True)

    def configure(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        """Writes processingjobconfig.json and resourceconfig.json, and makes the outputs."""
        for name in outputs:
            self.output(name).mkdir(parents=True, exist_ok=True)
        job = {
            "ProcessingJobName": "local",
            "AppSpecification": {"ContainerArguments": list(arguments)},
            "Environment": dict(environment),
            "ProcessingInputs": [
                {"InputName": n, "S3Input": {"LocalPath": f"{ML}/processing/input/{n}"}}
                for n in inputs
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {"OutputName": n, "S3Output": {"LocalPath": f"{ML}/processing/output/{n}"}}
                    for n in outputs
                ]
            },
        }
        resources = {"current_host": "algo-1", "hosts": ["algo-1"]}
        for name, value in (("processingjobconfig", job), ("resourceconfig", resources)):
            path = self._config / f"{name}.json"
            path.write_text(json.dumps(value), encoding="utf-8")

    def output(self, name: str) -> Path:
        """The folder that the output `name` comes from."""
        return self._output / name

    def mounts(self, inputs: Mapping[str, Path], outputs: Sequence[str]) -> list[Mount]:
        """Everything at its place; inputs and configuration can only be read."""
        messages = self.root / "messages"
        messages.mkdir(exist_ok=True)
        found = [
            Mount(self._config, f"{ML}/config", read_only=True),
            Mount(messages, f"{ML}/output"),
        ]
        for name, folder in inputs.items():
            found.append(Mount(folder, f"{ML}/processing/input/{name}", read_only=True))
        return found + [Mount(self.output(n), f"{ML}/processing/output/{n}") for n in outputs]

    @property
    def message(self) -> str | None:
        """The first 1 KB of /opt/ml/output/message."""
        path = self.root / "messages" / "message"
        return path.read_bytes()[:1024].decode(errors="replace") if path.exists() else None
