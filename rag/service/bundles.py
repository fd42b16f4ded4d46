"""The bundles of a service: loaded, replaced by another version, unloaded, each without a request
that fails for it.
"""

from __future__ import annotations

from functools import partial

from rag.service import memory
from rag.service.background import Background
from rag.service.engine import Engine
from rag.service.engines import EngineMaker
from rag.service.metrics import Metrics
from rag.service.state import THE_BUNDLE, Served, Service


class Bundles:
    """Loads, replaces and unloads the bundles of one service; lives on its event loop."""

    def __init__(
        self, service: Service, maker: EngineMaker, background: Background, metrics: Metrics
    ) -> None:
        self._service = service
        self._maker = maker
        self._background = background
        self._metrics = metrics

    async def replace(self, uri: str, version: str | None = None, bundle: str = THE_BUNDLE) -> str:
        """Serves `bundle` from `uri` once that is loaded, proven and warm; returns its version when
        what served it before is gone from memory. If loading fails, that goes on.
        """
        engine = await self._load(uri, version, bundle)
        self._metrics.begin(bundle)
        before = self._service.begin(engine, bundle)
        if before is not None:
            self._maker.forget_queries()
            await self._retire(before)
        return engine.version

    async def unload(self, bundle: str) -> None:
        """Serves `bundle` no more; returns when it is gone from memory. Raises NoSuchBundle."""
        served = self._service.end(bundle)
        self._metrics.forget(bundle)
        await self._retire(served)

    async def _load(self, uri: str, version: str | None, bundle: str) -> Engine:
        engine = await self._background.run(
            "loader", partial(self._maker.load, uri, version, bundle)
        )
        memory.keep()
        return engine

    async def _retire(self, served: Served) -> None:
        """Waits for the requests that use it, then frees it."""
        await served.idle()
        await served.engine.close()
        served.forget()
        await self._background.run("release", memory.release)
