"""The platform's folders around a training or processing job, and what they say.

Everything lies below one folder, `/opt/ml` on the platform.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError

FAILURE_CHARS = 1024
"""So much of `output/failure` reaches the job's FailureReason."""
MESSAGE_BYTES = 1024
"""So much of `output/message` reaches the job's ExitMessage."""
DOCUMENTS = "documents"
ENCODER = "encoder"
PREVIOUS = "previous"
_OWN = (DOCUMENTS, "training", "train")
_SDK = "sagemaker_"
"""The platform's SDK adds hyperparameters that begin so; they are not meant for the program."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One command-line option: its names (`names[0]` is given), those that switch it off, whether
    it is a switch without a value, and whether it may be repeated.
    """

    names: Sequence[str]
    off: Sequence[str]
    is_switch: bool
    repeats: bool


@dataclass(frozen=True, slots=True)
class Channel:
    """One input of a training job: its folder, and whether this host has only a share of it."""

    name: str
    folder: Path
    sharded: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one job, below `root`."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def hyperparameters(self) -> dict[str, str]:
        """All hyperparameters but the SDK's own."""
        raw = self._json("input/config/hyperparameters.json")
        return {n: str(v) for n, v in raw.items() if not n.startswith(_SDK)}

    def channels(self) -> dict[str, Channel]:
        """The inputs by name.

        Raises ConfigurationError for one in Pipe mode or in RecordIO: documents are files.
        """
        channels = {}
        for name, raw in self._json("input/config/inputdataconfig.json").items():
            if raw.get("TrainingInputMode") == "Pipe":
                raise ConfigurationError(
                    f"channel '{name}' comes in Pipe mode, which holds no files; set its"
                    " TrainingInputMode to File or FastFile"
                )
            if raw.get("RecordWrapperType", "None") not in ("None", None):
                raise ConfigurationError(
                    f"channel '{name}' is wrapped in {raw['RecordWrapperType']}; set its"
                    " RecordWrapperType to None"
                )
            sharded = raw.get("S3DistributionType") == "ShardedByS3Key"
            channels[name] = Channel(name, self.root / "input" / "data" / name, sharded)
        if not channels and (self.root / "input" / "data").is_dir():
            folders = sorted(p for p in (self.root / "input" / "data").iterdir() if p.is_dir())
            channels = {p.name: Channel(p.name, p, sharded=False) for p in folders}
        return channels

    def hosts(self) -> tuple[str, list[str]]:
        """The name of the host that asks, and all hosts' names, ascending."""
        for place in ("input/config/resourceconfig.json", "config/resourceconfig.json"):
            raw = self._json(place)
            if raw:
                hosts = sorted(raw.get("hosts") or [raw["current_host"]])
                return str(raw["current_host"]), hosts
        return "algo-1", ["algo-1"]

    def processing(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """The folders of a processing job's inputs and outputs, by name, in the job's order."""
        raw = self._json("config/processingjobconfig.json")
        inputs = {
            item["InputName"]: Path(item["S3Input"]["LocalPath"])
            for item in raw.get("ProcessingInputs") or []
            if item.get("S3Input", {}).get("LocalPath")
        }
        outputs = {
            item["OutputName"]: Path(item["S3Output"]["LocalPath"])
            for item in (raw.get("ProcessingOutputConfig") or {}).get("Outputs") or []
            if item.get("S3Output", {}).get("LocalPath")
        }
        return inputs, outputs

    def write_failure(self, text: str) -> None:
        """Says why a training job failed."""
        self._write("failure", text[:FAILURE_CHARS])

    def write_message(self, text: str) -> None:
        """Says why a processing job failed, or what came out of it."""
        data = text.encode("utf-8")[:MESSAGE_BYTES]
        self._write("message", data.decode("utf-8", "ignore"))

    def _write(self, name: str, text: str) -> None:
        folder = self.root / "output"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.root / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"{path} is not JSON ({error})") from None
        if not isinstance(value, dict):
            raise ConfigurationError(f"{path} is no JSON object")
        return value


def documents_channel(channels: Mapping[str, Channel], name: str | None) -> Channel:
    """The channel that holds the documents: `name`, or 'documents', 'training' or 'train', or the
    only one. Raises ConfigurationError if there is none.
    """
    others = {n: c for n, c in channels.items() if n not in (ENCODER, PREVIOUS)}
    for wanted in (name,) if name else _OWN:
        if wanted in channels:
            return channels[wanted]
    if name is None and len(others) == 1:
        return next(iter(others.values()))
    raise ConfigurationError(
        f"the job has no channel '{name or DOCUMENTS}' (it has: {', '.join(channels) or 'none'});"
        " give the documents' channel that name, or name it in the hyperparameter 'channel'"
    )


def as_arguments(hyperparameters: Mapping[str, str], flags: Sequence[Flag]) -> list[str]:
    """Hyperparameters as command-line arguments of the same options.

    Names are those of the flags, with '_' or '-'. Values are strings, and may be JSON: a quoted
    string is unquoted, a list repeats the option, true and false set a switch, null leaves the
    default. Raises ConfigurationError for a name or a switch's value that is not known.
    """
    known = {_plain(name): flag for flag in flags for name in flag.names}
    arguments = []
    for name, text in hyperparameters.items():
        flag = known.get(_plain(name))
        if flag is None:
            near = difflib.get_close_matches(_plain(name), known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigurationError(f"hyperparameter '{name}' is not known{hint}")
        arguments += _argument(name, text, flag)
    return arguments


def take(hyperparameters: dict[str, str], name: str) -> str | None:
    """Removes the hyperparameter `name`, spelled and quoted in any way that `as_arguments` reads;
    returns its value, None where it is not given or null.
    """
    given = [spelling for spelling in hyperparameters if _plain(spelling) == name]
    texts = [hyperparameters.pop(spelling) for spelling in given]
    value = _value(texts[-1]) if texts else None
    return value if value is None or isinstance(value, str) else texts[-1]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _argument(name: str, text: str, flag: Flag) -> list[str]:
    value = _value(text)
    if value is None:
        return []
    if flag.is_switch:
        value = str(value).lower()
        if value not in ("true", "false", "1", "0"):
            raise ConfigurationError(f"hyperparameter '{name}' is {text!r}; use true or false")
        return list(flag.names if value in ("true", "1") else flag.off)[:1]
    if isinstance(value, list) and flag.repeats:
        return [part for item in value for part in (flag.names[0], _text(item))]
    return [flag.names[0], value if isinstance(value, str) else text]


def _text(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")
