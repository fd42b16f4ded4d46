"""compose.yaml: valid, complete, and nothing is needed for the plain profile but what it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.settings import Settings

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="module")
def services() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def test_it_is_valid_by_the_compose_specification() -> None:
    command = [
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
        str(DOCKER / "compose.yaml"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plain_profile_needs_no_gpu_and_no_generator(services: Any) -> None:
    plain = {name: service for name, service in services.items() if "profiles" not in service}
    assert set(plain) == {"s3", "bucket", "indexer", "inference"}
    for service in plain.values():
        assert set(service.get("depends_on", {})) <= set(plain)
        assert "deploy" not in service


def test_every_setting_of_the_service_exists(services: Any) -> None:
    given = [name for name in services["inference"]["environment"] if name.startswith("RAG_")]
    assert {name.removeprefix("RAG_").lower() for name in given} <= set(Settings.model_fields)


def test_images_are_pinned_and_files_exist(services: Any) -> None:
    for name, service in services.items():
        built = "build" in service
        assert built or ":" in service["image"], name
        if built:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DOCKER / source).exists(), source


def test_our_containers_run_without_privileges(services: Any) -> None:
    for name in ("indexer", "inference"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not service["user"].startswith("0")
