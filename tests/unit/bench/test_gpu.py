"""The bench of the GPU path, as far as a CPU can run it: every part at a tiny size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu.py"
PARTS = ("check", "encoder", "indexing", "search", "bundle", "service")

pytestmark = pytest.mark.slow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def small(work: Path, *parts: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what the results file says of each part."""
    results = work.with_suffix(".md")
    done = run(
        "--device", "cpu", "--small", "--work", str(work), "--results", str(results),
        "--passages", "500", "--parts", *parts,
    )  # fmt: skip
    sections = results.read_text(encoding="utf-8").split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(parts), done.stderr
    return done.returncode, dict(zip(parts, sections, strict=True))


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    code, told = small(tmp_path / "work", *PARTS)
    assert code == 0, told
    for part, of in (
        ("check", "bfloat16: same ten hits"),
        ("encoder", "16 clients"),
        ("indexing", "plain SentenceTransformer.encode"),
        ("search", "IVF float16, 2,000 passages: same hits"),
        ("bundle", "500 passages: on disk"),
        ("service", "hybrid, one client, p50"),
    ):
        assert of in told[part]
    assert "sparse leg" not in told["service"], "the bundle that is there is used"


def test_a_part_that_fails_leaves_the_figures_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "work" / "encoder").mkdir(parents=True)  # an export that is none
    code, told = small(tmp_path / "work", "check", "search")
    assert code == 1
    assert "check failed (exit code 1)" in told["check"]
    assert "copy, bytes read and written" in told["check"]
    assert "float16 scan of 2,000, 8 at once" in told["search"]


def test_a_part_that_takes_too_long_is_ended() -> None:
    done = run("--device", "cpu", "--small", "--parts", "search", "--part-seconds", "0.5")
    assert done.returncode == 1
    assert "search failed (ended after 0.5 s)" in done.stdout


def test_what_is_missing_is_told_by_a_python_that_has_nothing() -> None:
    command = [sys.executable, "-S", "-E", str(SCRIPT), "--missing"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "faiss-gpu-cuvs==1.15.1" in told
    assert "bm25s" in told
