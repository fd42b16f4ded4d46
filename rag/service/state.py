"""The life of the service: loading, ready, draining; and who is being served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from rag.errors import NotReady, Overloaded
from rag.service.access import Access
from rag.service.engine import Engine
from rag.service.schemas import Limits


class Phase(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Service:
    """What every route shares; lives on the event loop's thread."""

    def __init__(
        self, limits: Limits, *, max_in_flight: int = 1024, access: Access | None = None
    ) -> None:
        self.limits = limits
        self.access = access or Access()
        self.phase = Phase.LOADING
        self._engine: Engine | None = None
        self._max_in_flight = max_in_flight
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def engine(self) -> Engine | None:
        return self._engine

    @property
    def in_flight(self) -> int:
        """How many requests are being worked on."""
        return len(self._tasks)

    @property
    def healthy(self) -> bool:
        """Whether traffic may come: ready, and every worker lives."""
        return self.phase is Phase.READY and self._engine is not None and self._engine.healthy

    def begin(self, engine: Engine) -> None:
        """Serves from `engine` from now on, unless the service is draining already."""
        if self.phase is Phase.LOADING:
            self._engine, self.phase = engine, Phase.READY

    def fail(self) -> None:
        """Loading has failed for good."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.FAILED

    @contextmanager
    def admit(self) -> Iterator[Engine]:
        """The engine, for the time of one request by the current task.

        Raises NotReady while loading or draining, and Overloaded.
        """
        if self.phase is not Phase.READY or self._engine is None:
            raise NotReady(f"the service is {self.phase}; retry, here or elsewhere")
        if len(self._tasks) >= self._max_in_flight:
            raise Overloaded(f"{len(self._tasks)} requests are being worked on; retry later")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("requests are admitted inside a task")
        self._tasks.add(task)
        try:
            yield self._engine
        finally:
            self._tasks.discard(task)

    async def drain(self, timeout_s: float) -> None:
        """Admits nothing more, waits for requests to end, then cancels those left.

        A cancelled request still tells its caller why (see rag/service/routes.py).
        """
        self.phase = Phase.DRAINING
        await self._until_idle(timeout_s)
        for task in self._tasks:
            task.cancel()
        await self._until_idle(1.0)

    async def _until_idle(self, timeout_s: float) -> None:
        end = asyncio.get_running_loop().time() + timeout_s
        while self._tasks and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
