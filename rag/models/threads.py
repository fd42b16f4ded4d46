"""How many processors this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


def limit_pools() -> None:
    """Tells the libraries with thread pools of their own (FAISS, BLAS, Numba, tokenizers) how many
    processors there are, unless the environment does. They read it when they are loaded.
    """
    for name in _POOLS:
        os.environ.setdefault(name, str(usable_cpus()))
    # A thread that spins while it waits for work takes the processor from whoever has some.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def usable_cpus(
    cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Processors that affinity and the cgroup quotas (v1 and v2) leave, rounded down, at least 1.

    The machine's own count overstates both in a container, and threads beyond a quota only get
    each other throttled.
    """
    count = float(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    for folder in _cgroup_folders(cgroups, membership):
        count = min(count, _quota_v2(folder), _quota_v1(folder))
    return max(1, int(count))


def _cgroup_folders(cgroups: Path, membership: Path) -> list[Path]:
    """The group of this process and all above it, since the tightest quota counts."""
    folders = {cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct"}
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = cgroups / controllers if controllers else cgroups
        group = base / path.strip("/")
        folders.update([group, *(up for up in group.parents if up.is_relative_to(base))])
    return sorted(folders)


def _quota_v2(folder: Path) -> float:
    parts = _read(folder / "cpu.max").split()
    if len(parts) != 2 or parts[0] == "max":
        return float("inf")
    return int(parts[0]) / int(parts[1])


def _quota_v1(folder: Path) -> float:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota) <= 0:
        return float("inf")
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        # No such controller or group here: it sets no limit.
        return ""
