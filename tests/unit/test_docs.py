"""The documentation says what is true: settings, commands, folders, floors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rag import __version__, settings
from rag.retrieval.fusion import METHODS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "docker/README.md"])
def test_every_setting_is_in_the_readme(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    shown = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == settings.table(), "run `make tables`"


COMMANDS = {
    "rag.__main__": ("serve", "search", "ask", "key", "rollback"),
    "indexer.__main__": (
        "build",
        "verify",
        "report",
        "versions",
        "publish",
        "rollback",
        "prune",
        "pin",
        "prune-vectors",
        "fsck",
        "explain",
        "diff",
        "train",
        "process",
        "metrics",
    ),
    "eval.__main__": (
        "retrieval",
        "compare",
        "gate",
        "report",
        "golden",
        "answers",
        "synth",
        "tune",
    ),
}
HELPS = [(module, name) for module, names in COMMANDS.items() for name in names]


@pytest.mark.parametrize(("module", "name"), HELPS)
def test_every_command_has_help_with_an_example(module: str, name: str) -> None:
    command = [sys.executable, "-m", module, name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Example:" in done.stdout
    assert name in README


def test_help_lists_exactly_these_commands() -> None:
    for module, names in COMMANDS.items():
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
        )
        listed = re.findall(r"^  ([a-z-]+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE)
        assert tuple(listed) == names


def test_architecture_has_a_heading_for_every_room_and_no_other() -> None:
    headings = set(re.findall(r"^#+ ([a-z_/]+/)$", ARCHITECTURE, re.MULTILINE))
    rooms = {
        f"{p.parent.relative_to(ROOT).as_posix()}/" for p in ROOT.glob("[rie]*/**/__init__.py")
    }
    rooms = {room for room in rooms if room.split("/")[0] in ("rag", "indexer", "eval")}
    assert headings == rooms | {"tests/", "docker/", "sagemaker_local/"}


def test_files_that_architecture_names_exist() -> None:
    section, missing = "", []
    for line in ARCHITECTURE.splitlines():
        if heading := re.match(r"#+ ([a-z_/]+/)$", line):
            section = heading[1]
        for name in re.findall(r"`([a-z_/]+\.py)`", line):
            places = (ROOT / name, ROOT / section / name)
            if not any(place.is_file() for place in places):
                missing.append(f"{section}: {name}")
    assert missing == []


def test_fusion_methods_and_version_are_told() -> None:
    assert any(method in README for method in METHODS)
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_extras_and_commands_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"cpu", "gpu", "indexer", "eval", "korean", "langchain", "otel", "databases", "dev"}
    assert extras <= set(project["optional-dependencies"])
    assert set(project["scripts"]) == {"rag", "rag-indexer", "rag-eval", "rag-container"}


def test_requests_in_the_readme_are_json() -> None:
    bodies = re.findall(r"-d '(\{.*?\})'", README)
    assert bodies
    for body in bodies:
        json.loads(body)
