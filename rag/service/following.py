"""Following a root: when `CURRENT` names another version, that one is loaded beside the one that
serves, and takes its place between two requests.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from rag.errors import RagError
from rag.index.pointer import Pointer
from rag.index.root import Root
from rag.service.background import Background

logger = logging.getLogger(__name__)

JITTER = 0.2
"""Share of each wait that is drawn by chance, so that replicas do not ask all at once."""
LONGEST_WAIT_S = 900.0
"""Between two attempts at a version that cannot be loaded, and at a root that cannot be read."""

Replace = Callable[[str, str | None], Awaitable[str]]
"""Loads (bundle or root, version of the root or None), proves and warms it, lets it serve, and
returns its version when the one before it is gone."""


class Events(Protocol):
    """Who hears of what a follower does."""

    def swapped(self, took_s: float) -> None: ...
    def swap_failed(self, error: str) -> None: ...
    def stale(self, is_stale: bool) -> None: ...


@dataclass(slots=True)
class _Trouble:
    """Failures in a row, and the `time.monotonic()` moment until which nothing is tried again."""

    failures: int = 0
    until: float = 0.0

    def add(self, interval_s: float) -> float:
        """Counts one more; the wait that follows, in seconds."""
        wait_s = _jittered(min(LONGEST_WAIT_S, interval_s * 2.0 ** min(self.failures, 30)))
        self.failures += 1
        self.until = time.monotonic() + wait_s
        return wait_s


class Follower:
    """Keeps one bundle of a service at its root's current version.

    Every `interval_s` seconds, with jitter, `CURRENT` is asked for by its ETag; 0 never asks. A
    version that cannot be loaded leaves the old one serving, and is tried again after waits that
    double, up to LONGEST_WAIT_S; a new `CURRENT` is tried at once. As `replace` returns only when
    the version before is gone, no more than two are ever in memory.
    """

    def __init__(
        self,
        uri: str,
        replace: Replace,
        background: Background,
        events: Events,
        *,
        interval_s: float,
        copies: Copies,
    ) -> None:
        self._uri = uri
        self._root = Root(uri)
        self._replace = replace
        self._background = background
        self._events = events
        self._interval_s = interval_s
        self._copies = copies
        self._known = Pointer("")
        self._is_root = False
        self._serving: str | None = None
        self._unreadable = _Trouble()
        self._unloadable = _Trouble()

    async def begin(self, version: str | None = None) -> str:
        """Serves the current version, or `version` and then no other; returns which.

        Raises what loading raises; `run` then tries again.
        """
        if version is not None:
            self._interval_s = 0.0
        else:
            known = await self._background.run("poll", self._root.current)
            self._is_root = known is not None
            self._known = known or self._known
            version = self._known.version or None
        self._copies.make_room(version, None)
        self._serving = await self._replace(self._uri, version)
        return self._serving

    async def run(self) -> None:
        """Follows for ever; returns at once where there is no root to follow."""
        if not self._interval_s or (self._serving and not self._is_root):
            return
        while True:
            wait_s = max(self._interval_s, self._unreadable.until - time.monotonic())
            await asyncio.sleep(_jittered(wait_s))
            await self._poll()
            if self._known.version == self._serving:
                self._events.stale(False)
            elif self._known.version and time.monotonic() >= self._unloadable.until:
                await self._try(self._known.version)

    async def _poll(self) -> None:
        """Reads the pointer, if it is another than the known one."""
        try:
            found = await self._background.run("poll", partial(self._root.poll, self._known))
        except Exception as error:  # whatever it is, following goes on
            wait_s = self._unreadable.add(self._interval_s)
            self._events.swap_failed(type(error).__name__)
            unknown = None if isinstance(error, RagError) else error
            logger.warning("%s; asking again in %.0f s", error, wait_s, exc_info=unknown)
            return
        self._unreadable = _Trouble()
        if found is not None:
            self._known, self._unloadable = found, _Trouble()

    async def _try(self, version: str) -> None:
        began, before = time.monotonic(), self._serving
        self._events.stale(True)
        try:
            self._copies.make_room(version, before)
            self._serving = await self._replace(self._uri, version)
        except Exception as error:  # whatever it is, the old version goes on serving
            wait_s = self._unloadable.add(self._interval_s)
            self._events.swap_failed(type(error).__name__)
            logger.error(
                "version %s cannot be served, %s goes on; trying again in %.0f s: %s",
                version, before or "none", wait_s, error,
                exc_info=None if isinstance(error, RagError) else error,
                extra={"retry_in_s": round(wait_s, 3)},
            )  # fmt: skip
            return
        took_s = time.monotonic() - began
        self._events.swapped(took_s)
        self._events.stale(False)
        extra = {"index_version": version, "before": before, "took_s": round(took_s, 3)}
        logger.info("serving another version", extra=extra)


class Copies:
    """The copies in `folder` of a remote root's versions (None: it is not remote): the version
    that serves, the one before it, for a rollback, and while one is loaded that one instead.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: set[str] = set()

    def make_room(self, coming: str | None, serving: str | None) -> None:
        """Removes what neither serves nor comes."""
        kept = {version for version in (coming, serving) if version}
        if self._folder is not None:
            for version in self._known - kept:
                shutil.rmtree(self._folder / version, ignore_errors=True)
        self._known = kept


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
