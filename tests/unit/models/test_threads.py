from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag.models.batches import length_batches
from rag.models.threads import usable_cpus
from rag.types import Int64


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)


def test_no_quota_leaves_affinity(tmp_path: Path) -> None:
    write(tmp_path / "cg", cpu__max="max 100000")
    assert usable_cpus(tmp_path / "cg", tmp_path / "absent") == 64


@pytest.mark.parametrize(("quota", "cpus"), [("400000", 4), ("250000", 2), ("50000", 1)])
def test_a_v2_quota_counts(tmp_path: Path, quota: str, cpus: int) -> None:
    write(tmp_path / "cg", cpu__max=f"{quota} 100000")
    assert usable_cpus(tmp_path / "cg", tmp_path / "absent") == cpus


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    write(tmp_path / "cg" / "pod", cpu__max="300000 100000")
    write(tmp_path / "cg" / "pod" / "box", cpu__max="800000 100000")
    (tmp_path / "self").write_text("0::/pod/box\n")
    assert usable_cpus(tmp_path / "cg", tmp_path / "self") == 3


def test_a_v1_quota_counts(tmp_path: Path) -> None:
    group = tmp_path / "cg" / "cpu,cpuacct" / "docker" / "abc"
    write(group, cpu__cfs_quota_us="600000", cpu__cfs_period_us="100000")
    (tmp_path / "self").write_text("4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n")
    assert usable_cpus(tmp_path / "cg", tmp_path / "self") == 6
    write(group, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert usable_cpus(tmp_path / "cg", tmp_path / "self") == 64


def test_here_there_is_at_least_one() -> None:
    assert 1 <= usable_cpus() <= 64


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_batches_hold_every_text_once_within_the_budget(budget: int) -> None:
    lengths = np.array([3, 9, 1, 40, 9, 2, 0, 17], dtype=np.int64)
    batches = list(length_batches(lengths, budget))
    assert sorted(row for rows in batches for row in rows) == list(range(8))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= budget
    assert list(length_batches(lengths[:0], budget)) == []


@pytest.mark.parametrize("run_tokens", [0, 5, 24, 10_000])
def test_batches_are_cut_where_it_saves_most(run_tokens: int) -> None:
    """Against every way to cut nine lengths."""
    lengths = np.array([3, 9, 1, 40, 9, 2, 0, 17, 12], dtype=np.int64)

    def cost(batches: list[Int64]) -> int:
        return sum(run_tokens + len(rows) * int(lengths[rows].max()) for rows in batches)

    order = np.argsort(-lengths, kind="stable")
    ways = [
        np.split(order, [place for place in range(1, 9) if chosen >> (place - 1) & 1])
        for chosen in range(1 << 8)
    ]
    batches = list(length_batches(lengths, 10_000, run_tokens=run_tokens))
    assert np.concatenate(batches).tolist() == order.tolist()
    assert cost(batches) == min(cost(way) for way in ways)


def test_cut_batches_keep_to_the_budget() -> None:
    lengths = np.array([8, 8, 8, 2, 2, 2, 2], dtype=np.int64)
    batches = list(length_batches(lengths, 16, run_tokens=1))
    assert [rows.tolist() for rows in batches] == [[0, 1], [2], [3], [4, 5, 6]]


def test_thread_pools_of_libraries_are_limited() -> None:
    code = (
        "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from rag.models.threads import limit_pools\nlimit_pools()\n"
        "import faiss, numba\nprint(faiss.omp_get_max_threads(), numba.config.NUMBA_NUM_THREADS)"
    )
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
    command[2] = code.replace("import os\n", "import os\nos.environ['OMP_NUM_THREADS'] = '3'\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "1"]
