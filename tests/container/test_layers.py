"""What is in the images: sizes, no tools, no caches, no secrets."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECRETS = re.compile(
    rb"-----BEGIN (?:RSA |EC |OPENSSH |)PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}"
    rb"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bhf_[A-Za-z0-9]{34}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    rb"|\bsk-[A-Za-z0-9]{32,}\b|://[^/\s:@\"'<>{}$%]+:[^/\s:@\"'<>{}$%]+@[a-z0-9.-]+\.[a-z]{2,}/simple"
)
EXAMPLE = re.compile(rb"EXAMPLE|example|username|password")
NAMES = re.compile(
    r"(^|/)(\.env|\.netrc|\.pypirc|\.npmrc|\.git|id_rsa|id_ed25519|credentials|pip\.conf|\.git-credentials)$"
)
TOOLS = ("gcc", "cc", "g++", "make", "ld", "git", "cargo", "pip", "uv")
MB = 1_000_000
LARGEST_MB = 900
"""For the CPU image of the service, its base included."""


@pytest.fixture(scope="module", params=["inference", "indexer"])
def image(request: pytest.FixtureRequest) -> str:
    name = request.getfixturevalue(request.param)
    assert isinstance(name, str)
    return name


@pytest.fixture(scope="module")
def layers(engine: Any, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image as an archive."""
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    engine.call("save", "--output", str(archive), image)
    yield archive
    archive.unlink()


def history(engine: Any, image: str) -> list[dict[str, Any]]:
    said = engine.call("history", "--no-trunc", "--format", "{{json .}}", image)
    found = [json.loads(line) for line in said.splitlines()]
    # One object a line from docker, one list of them from podman.
    return found[0] if isinstance(found[0], list) else found


def test_no_secret_is_in_any_layer_or_in_the_history(engine: Any, image: str, layers: Path) -> None:
    found = []
    with tarfile.open(layers) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            if not member.name.endswith((".tar", "layer")) and "blobs" not in member.name:
                if SECRETS.search(stream.read()):
                    found.append(member.name)
                continue
            try:
                with tarfile.open(fileobj=stream) as layer:
                    found += [f"{member.name}: {name}" for name in secrets_of(layer)]
            except tarfile.ReadError:
                continue
    assert found == []
    assert not SECRETS.search(json.dumps(history(engine, image)).encode())


def secrets_of(layer: tarfile.TarFile) -> Iterator[str]:
    for entry in layer:
        # Builds may leave empty files where something was mounted.
        if NAMES.search(entry.name) and entry.size:
            yield entry.name
        if not entry.isfile() or entry.size > 2 * MB:
            continue
        stream = layer.extractfile(entry)
        text = b"" if stream is None else stream.read()
        for match in SECRETS.finditer(text):
            if not EXAMPLE.search(match[0]):
                yield f"{entry.name}: {match[0][:12]!r}"


def test_no_tools_tests_or_caches(engine: Any, image: str) -> None:
    script = (
        f"cd /opt/venv/bin; for tool in {' '.join(TOOLS)}; do [ -e $tool ] && echo $tool; done;"
        "find /opt -type d \\( -name tests -o -name .git \\) -not -path '*/torch/*';"
        "find /opt -perm -o+w -not -type l;"
        "find /root/.cache /tmp /build /opt/export -mindepth 1 2>/dev/null; true"
    )
    said = engine.call("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", script)
    assert said.split() == []


def test_the_cpu_images_have_no_pytorch(engine: Any, image: str) -> None:
    code = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('triton'))"
    said = engine.call("run", "--rm", "--entrypoint", "/opt/venv/bin/python", image, "-c", code)
    assert said.split() == ["None", "None"]


def test_loops_were_compiled_ahead_and_nothing_needs_numba(engine: Any, image: str) -> None:
    code = (
        "import importlib.util as u; print(u.find_spec('numba'), u.find_spec('llvmlite'));"
        "from rag.compiled.kernel import compiler; print(compiler())"
    )
    said = engine.call("run", "--rm", "--entrypoint", "/opt/venv/bin/python", image, "-c", code)
    assert re.fullmatch(r"None None\ncompiled ahead by Numba [\d.]+ for [\w-]+\n", said)


def test_certificate_authorities_are_there(engine: Any, image: str) -> None:
    # Of a folder of certificates, those that are needed are read when they are.
    code = (
        "import httpx2, os, ssl; folder = ssl.get_default_verify_paths().openssl_capath;"
        "read = httpx2.create_ssl_context(trust_env=False).get_ca_certs();"
        "print(len(read) or len(os.listdir(folder)))"
    )
    said = engine.call("run", "--rm", "--entrypoint", "/opt/venv/bin/python", image, "-c", code)
    assert int(said) > 50


def test_the_inference_image_is_small(engine: Any, inference: str) -> None:
    found = json.loads(engine.call("image", "inspect", inference))[0]
    assert found["Size"] <= LARGEST_MB * MB, f"{found['Size'] / MB:.0f} MB"


def own_layers(engine: Any, image: str) -> list[dict[str, Any]]:
    """The history's lines from the Dockerfile's own first copy on, newest first."""
    lines = history(engine, image)
    first = max(
        i for i, line in enumerate(lines) if size(line) > MB and "COPY" in line["CreatedBy"]
    )
    return lines[: first + 1]


def size(line: dict[str, Any]) -> int:
    stated = line.get("size", line.get("Size", 0))
    if isinstance(stated, int):
        return stated
    number, unit = re.fullmatch(r"([\d.]+)\s*([kMG]?B)", stated).groups()  # type: ignore[union-attr]
    return int(float(number) * {"B": 1, "kB": 1000, "MB": MB, "GB": 1000 * MB}[unit])


def test_a_code_change_touches_one_small_layer(engine: Any, image: str) -> None:
    code = [
        line for line in own_layers(engine, image) if "/opt/rag" in line["CreatedBy"] and size(line)
    ]
    assert sum(size(line) for line in code) < 20 * MB
