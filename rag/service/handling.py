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
from rag.service.negotiation import Headers, read_headers
from rag.service.state import THE_BUNDLE, Phase, Service
from rag.service.streaming import CONNECTION, Exchange, Send
from rag.service.tracing import Tracing, describe, trace_id_of

logger = logging.getLogger(__name__)

CLIENT_LEFT = 499
READER_GRACE_S = 5.0
"""How long after its deadline a stream may take to be read."""

Logged = Literal["all", "failures", "none"]


class Handler:
    """A plain ASGI application around `answer`: the hot routes pass no middleware and no
    dependency injection. `route` is its path, with names in braces; `logged` says which requests
    have a line in the log.
    """

    def __init__(
        self,
        answer: Callable[[Exchange], Awaitable[None]],
        route: str,
        service: Service,
        metrics: Metrics,
        *,
        tracing: Tracing,
        logged: Logged = "failures",
    ) -> None:
        self._answer = answer
        self._route = route
        self._service = service
        self._metrics = metrics
        self._tracing = tracing
        self._logged = logged

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        arrived = time.monotonic()
        headers = read_headers(scope["headers"])
        exchange = Exchange(
            headers, receive, send, arrived, self._bundle(scope, headers), scope.get(CONNECTION)
        )
        name = f"POST {self._route}"
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
                self._metrics.request(status, exchange.bundle)
                if span is not None:
                    describe(span, status, {"request_id": exchange.request_id})
                if self._logged == "all" or (self._logged == "failures" and status != 200):
                    took_ms = round((time.monotonic() - arrived) * 1e3, 3)
                    level = logging.INFO if status < 500 else logging.WARNING
                    logger.log(level, "%s %d", name, status, extra={"took_ms": took_ms})

    def _bundle(self, scope: Mapping[str, Any], headers: Headers) -> str:
        """The bundle that a path names, or on a multi-model endpoint a header."""
        named = scope.get("path_params", {}).get("name")
        if named is not None:
            return str(named)
        return headers.target_model if self._service.multi_model else THE_BUNDLE

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
