"""Numba in the process, and its cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rag.compiled.kernel import LIBRARY


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package without any compiled code."""
    copy = tmp_path / "site" / "rag"
    leave = shutil.ignore_patterns("__pycache__", LIBRARY.name)
    shutil.copytree(LIBRARY.parents[1], copy, ignore=leave)
    return copy


def test_kernels_work_where_nothing_can_be_written(package: Path, tmp_path: Path) -> None:
    """No cache folder at all: an installed package on a read-only file system, without a home."""
    for room in ("index", "retrieval"):
        (package / room / "__pycache__").write_bytes(b"")  # a file: no folder can be made here
    home = tmp_path / "home"
    home.write_bytes(b"")
    environment = {
        "PYTHONPATH": str(package.parent),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    code = "from rag.index import kernels; kernels.warm(); print(kernels.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str(package / "index" / "kernels.py")


def test_compiling_ahead_fills_the_cache(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(package.parent)
    }  # fmt: skip
    command = [sys.executable, "-m", "rag.retrieval.compile"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    filled = {path.name for path in cache.rglob("*.nbc")}
    code = (
        "from rag.index import kernels as i\nfrom rag.retrieval import kernels as k\n"
        "i.warm()\nk.warm()\n"
        "for f in (i.find_terms, i.group_by_term, i.search_postings, k.score):\n"
        "    assert f.stats.cache_hits and not f.stats.cache_misses, f.stats\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    assert {path.name for path in cache.rglob("*.nbc")} == filled
    for name in ("kernels.search_postings", "kernels.score", "counting_kernels.rank_postings"):
        assert any(file.startswith(name) for file in filled), name
