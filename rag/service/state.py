"""The life of the service: loading, ready, draining; which engines it has, and who uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from types import MappingProxyType

from rag.errors import NoSuchBundle, NotReady, Overloaded
from rag.service.access import Access
from rag.service.engine import Engine
from rag.service.schemas import Limits

THE_BUNDLE = ""
"""The name of the bundle that a service with one bundle serves."""


class Phase(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Served:
    """One engine, and how many requests use it; lives on the event loop's thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        self.users += 1
        self._idle.clear()

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            self._idle.set()

    def forget(self) -> None:
        """Lets go of the engine, which has been closed."""
        del self.engine

    async def idle(self) -> None:
        """Returns when no request uses the engine."""
        await self._idle.wait()


class Service:
    """What every route shares: the engines by their bundles' names, limits, and who may ask.

    With `multi_model` requests name their bundle. Lives on the event loop's thread. A request
    keeps the engine that it began with, whatever happens to its bundle meanwhile.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        max_in_flight: int = 1024,
        access: Access | None = None,
        multi_model: bool = False,
    ) -> None:
        self.limits = limits
        self.multi_model = multi_model
        self.access = access or Access()
        self.phase = Phase.LOADING
        self._served: dict[str, Served] = {}
        self._max_in_flight = max_in_flight
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engine of each bundle."""
        return MappingProxyType({name: served.engine for name, served in self._served.items()})

    @property
    def engine(self) -> Engine | None:
        """The engine of a service with one bundle."""
        served = self._served.get(THE_BUNDLE)
        return None if served is None else served.engine

    @property
    def in_flight(self) -> int:
        """How many requests are being worked on."""
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """Whether as many requests are being worked on as may be."""
        return len(self._tasks) >= self._max_in_flight

    @property
    def healthy(self) -> bool:
        """Whether traffic may come: ready, and every worker lives."""
        return self.phase is Phase.READY and all(
            served.engine.healthy for served in self._served.values()
        )

    def ready(self) -> None:
        """Traffic may come, unless the service is draining already."""
        if self.phase is not Phase.DRAINING:
            self.phase = Phase.READY

    def fail(self) -> None:
        """Loading has failed."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.FAILED

    def begin(self, engine: Engine, bundle: str = THE_BUNDLE) -> Served | None:
        """Serves `bundle` from `engine` from now on; what served it before, which requests may
        still use, is the caller's to close.
        """
        before = self._served.get(bundle)
        self._served[bundle] = Served(engine)
        self.ready()
        return before

    def end(self, bundle: str) -> Served:
        """Serves `bundle` no more; the rest is as in `begin`. Raises NoSuchBundle."""
        if bundle not in self._served:
            raise NoSuchBundle("no such bundle is loaded; GET /models lists those that are")
        return self._served.pop(bundle)

    @contextmanager
    def admit(self, bundle: str = THE_BUNDLE) -> Iterator[Engine]:
        """The engine of `bundle`, for the time of one request by the current task.

        Raises NotReady while loading or draining, NoSuchBundle, and Overloaded.
        """
        if self.phase is not Phase.READY:
            raise NotReady(f"the service is {self.phase}; retry, here or elsewhere")
        served = self._served.get(bundle)
        if served is None:
            raise NoSuchBundle("no such bundle is loaded; GET /models lists those that are")
        if self.full:
            raise Overloaded(f"{len(self._tasks)} requests are being worked on; retry later")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("requests are admitted inside a task")
        self._tasks.add(task)
        served.enter()
        try:
            yield served.engine
        finally:
            served.leave()
            self._tasks.discard(task)

    async def drain(self, timeout_s: float) -> None:
        """Admits nothing more, waits for requests to end, then cancels those left.

        A cancelled request still tells its caller why (see rag/service/handling.py).
        """
        self.phase = Phase.DRAINING
        await self._until_idle(timeout_s)
        for task in self._tasks:
            task.cancel()
        await self._until_idle(1.0)

    async def close(self) -> bool:
        """Closes every engine; True when no thread is left inside a library."""
        ended = [await served.engine.close() for served in self._served.values()]
        self._served.clear()
        return all(ended)

    async def _until_idle(self, timeout_s: float) -> None:
        end = asyncio.get_running_loop().time() + timeout_s
        while self._tasks and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
