"""Every lock pins and hashes all that pyproject.toml asks of its image, and of nothing else's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LOCKS = ROOT / "docker" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "inference-cpu": ("cpu", "korean", "aws", "otel"),
    "inference-cuda": ("gpu", "korean", "aws", "otel"),
    "indexer-cpu": ("cpu", "korean", "aws", "otel", "parsing"),
    "indexer-cuda": ("gpu", "korean", "aws", "otel", "parsing", "export"),
    "export": ("cpu", "korean", "aws", "otel", "parsing", "export"),
}
LEFT_OUT = {"export": {"torch"}}
"""What the Dockerfile installs by itself: TORCH_SPEC."""
BUILD_ONLY = {"numba", "llvmlite"}
"""What compiles the loops while an image is built."""


def pins(name: str) -> dict[str, str]:
    """The lock's versions by name; each must have a hash."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (LOCKS / f"{name}.txt").read_text()):
        if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry):
            assert "--hash=sha256:" in entry, entry
            found[canonicalize_name(match[1])] = match[2]
    return found


def wanted(name: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in EXTRAS[name]:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_all_that_its_image_needs(name: str) -> None:
    locked = pins(name)
    missing = [
        str(requirement)
        for requirement in wanted(name)
        if requirement.name not in BUILD_ONLY | LEFT_OUT.get(name, set())
        and not requirement.specifier.contains(
            locked.get(canonicalize_name(requirement.name), "0.dev0"), prereleases=True
        )
    ]
    assert missing == [], "run `make locks`"


@pytest.mark.parametrize("name", EXTRAS)
def test_what_compiles_the_loops_is_in_no_image(name: str) -> None:
    build, locked = pins("build"), pins(name)
    assert not BUILD_ONLY & set(locked)
    assert set(build) >= BUILD_ONLY
    numba = next(r for r in wanted(name) if r.name == "numba")
    assert numba.specifier.contains(build["numba"])
    # The layout of arrays is that of NumPy's major version.
    assert build["numpy"].split(".")[0] == locked["numpy"].split(".")[0]


@pytest.mark.parametrize("name", ["inference-cpu", "indexer-cpu"])
def test_cpu_images_get_no_pytorch(name: str) -> None:
    locked = pins(name)
    assert not {"torch", "transformers", "sentence-transformers", "triton"} & set(locked)
    assert not [package for package in locked if package.startswith("nvidia-")]


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_both_images_have_the_same_versions(accelerator: str) -> None:
    inference, indexer = pins(f"inference-{accelerator}"), pins(f"indexer-{accelerator}")
    # Only the engine of small corpora is asked for by name there and through `parsing` here.
    assert {name: indexer.get(name) for name in inference} == inference


def test_the_torch_that_exports_is_one_that_the_project_takes() -> None:
    specs = re.findall(
        r"ARG TORCH_SPEC=torch==(\S+)", (ROOT / "docker" / "indexer.Dockerfile").read_text()
    )
    assert len(set(specs)) == 1
    torch = next(r for r in wanted("export") if r.name == "torch")
    assert torch.specifier.contains(specs[0])
