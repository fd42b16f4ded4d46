"""What happens around every question, whatever its route: its id, its log line, its trace, its
count, and an answer to each failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from rag import logs
from rag.errors import NotReady
from rag.service.body import ClientLeft, Receive
from rag.service.errors import problem_of
from rag.service.metrics import Metrics
from rag.service.negotiation import read_headers
from rag.service.state import Phase, Service
from rag.service.streaming import Exchange, Send
from rag.service.tracing import Tracing, describe, trace_id_of

logger = logging.getLogger(__name__)

CLIENT_LEFT = 499
READER_GRACE_S = 5.0
"""How long after its deadline a stream may take to be read."""

Logged = Literal["all", "failures", "none"]


class Handler:
    """A plain ASGI application around `answer`: the hot routes pass no middleware and no
    dependency injection. `logged` says which requests have a line in the log.
    """

    def __init__(
        self,
        answer: Callable[[Exchange], Awaitable[None]],
        service: Service,
        metrics: Metrics,
        *,
        tracing: Tracing,
        logged: Logged = "failures",
    ) -> None:
        self._answer = answer
        self._service = service
        self._metrics = metrics
        self._tracing = tracing
        self._logged = logged

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        arrived = time.monotonic()
        exchange = Exchange(read_headers(scope["headers"]), receive, send, arrived)
        name = f"{scope['method']} {scope['path']}"
        with (
            logs.about(request_id=exchange.request_id),
            self._tracing.span(name, began=arrived, trace=exchange.headers.trace) as span,
        ):
            if span is not None:
                logs.note(trace_id=trace_id_of(span))
            status = CLIENT_LEFT
            try:
                status = await self._status(exchange)
            finally:
                self._metrics.request(status)
                if span is not None:
                    describe(span, status, {"request_id": exchange.request_id})
                if self._logged == "all" or (self._logged == "failures" and status != 200):
                    took_ms = round((time.monotonic() - arrived) * 1e3, 3)
                    level = logging.INFO if status < 500 else logging.WARNING
                    logger.log(level, "%s %d", name, status, extra={"took_ms": took_ms})

    async def _status(self, exchange: Exchange) -> int:
        """Answers; the status that counts, though a stream began with 200."""
        try:
            await self._answer(exchange)
        except ClientLeft:
            return CLIENT_LEFT
        except asyncio.CancelledError:
            if self._service.phase is not Phase.DRAINING:
                raise
            return await self._fail(exchange, NotReady("the service is shutting down; retry"))
        except Exception as error:  # noqa: BLE001 - every failure is an answer, see errors.py
            return await self._fail(exchange, error)
        return exchange.status

    async def _fail(self, exchange: Exchange, error: Exception) -> int:
        """Tells the client; the status that counts."""
        problem = problem_of(error, exchange.request_id)
        logs.note(error=problem.type)
        try:
            async with asyncio.timeout(READER_GRACE_S):
                await exchange.fail(problem)
        except TimeoutError:
            return CLIENT_LEFT  # a reader who reads nothing is told nothing
        return problem.status
