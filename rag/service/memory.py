"""How much memory bundles take, how much there is, and giving it back."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rag.errors import OutOfMemory

SHARE = 0.9
"""Of the container's memory, what bundles and the process together may take."""
COLLECT_EVERY_S = 30.0
"""Often enough for the little that calls leave which were broken off."""
YOUNG_OBJECTS = 100_000
"""That may be made, beyond those that are freed, before the collector looks at them: more than all
the requests are made of that wait in a full service.
"""


def resident_bytes(status: Path = Path("/proc/self/statm")) -> int:
    """What this process has in memory now, mapped files included."""
    return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def usable_bytes(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What the container may take: SHARE of the cgroup's limit (v2 or v1), or of the machine's
    memory where that is less.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in (cgroups / "memory.max", cgroups / "memory" / "memory.limit_in_bytes"):
        try:
            limits.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such controller here, or "max"
            continue
    return int(min(limits) * SHARE)


def spare_collector() -> None:
    """Makes Python's collector of reference cycles look seldom by itself: requests that are
    answered leave no cycles behind, and the objects of those that wait would be looked at again and
    again.
    """
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    keep()


def keep() -> None:
    """What is in memory now is there to stay: until `release` the collector looks at none of it.

    A full collection goes over all that libraries and a bundle consist of, and holds every request
    up meanwhile, for a tenth of a second; a busy service would make one every second.
    """
    gc.freeze()


async def collect_regularly() -> None:
    """Frees cycles that nobody uses, for ever, but for those of what is kept: that takes a few
    milliseconds.
    """
    while True:
        await asyncio.sleep(COLLECT_EVERY_S)
        gc.collect()


def release() -> None:
    """Frees what nobody uses any more, of what was kept too, and gives it back to the system;
    blocks.
    """
    gc.unfreeze()
    gc.collect()
    keep()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc: its allocator gives back on its own
        return


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a bundle takes in memory, bytes: `own` alone, `encoder` shared by all bundles whose
    encoder has the `digest`.
    """

    own: int
    encoder: int
    digest: str


class Ledger:
    """What loaded bundles take together, an encoder that they share counted once; no less than
    what `resident` says of the whole process, which keeps the libraries that bundles had it load.
    """

    def __init__(self, limit_bytes: int, resident: Callable[[], int] = resident_bytes) -> None:
        self.limit_bytes = limit_bytes
        self._resident = resident
        self._base_bytes = resident()
        self._held: list[Footprint] = []

    @property
    def used_bytes(self) -> int:
        """With the process itself."""
        return max(self._total(self._held), self._resident())

    def add(self, footprint: Footprint) -> None:
        """Raises OutOfMemory where it does not fit."""
        needed = self._total([*self._held, footprint]) - self._total(self._held)
        left = max(0, self.limit_bytes - self.used_bytes)
        if needed > left:
            raise OutOfMemory(
                f"the bundle needs {needed >> 20} MiB and {left >> 20} MiB are left of"
                f" {self.limit_bytes >> 20}; unload another, or raise RAG_MODELS_MEMORY_BYTES"
            )
        self._held.append(footprint)

    def correct(self, footprint: Footprint, measured_bytes: int) -> Footprint:
        """Counts what was measured in place of the estimate, where that was too low."""
        self.remove(footprint)
        estimated = self._total([*self._held, footprint]) - self._total(self._held)
        more = max(0, measured_bytes - estimated)
        corrected = Footprint(footprint.own + more, footprint.encoder, footprint.digest)
        self._held.append(corrected)
        return corrected

    def remove(self, footprint: Footprint) -> None:
        self._held.remove(footprint)

    def _total(self, footprints: list[Footprint]) -> int:
        encoders = {footprint.digest: footprint.encoder for footprint in footprints}
        own = sum(footprint.own for footprint in footprints)
        return self._base_bytes + own + sum(encoders.values())
