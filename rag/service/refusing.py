"""Refusals while there is no room: at once, before anything else is done, and without a log line
for each, so that a flood costs those who are being served as little as possible.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rag.errors import Overloaded
from rag.service.body import Receive
from rag.service.errors import problem_of
from rag.service.metrics import Metrics
from rag.service.negotiation import read_headers
from rag.service.state import Service
from rag.service.streaming import Exchange, Send

logger = logging.getLogger(__name__)
LOG_EVERY_S = 1.0

Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]


class Refusing:
    """An ASGI application in front of another one, which it calls while `service` has room."""

    def __init__(self, application: Application, service: Service, metrics: Metrics) -> None:
        self._application = application
        self._service = service
        self._metrics = metrics
        self._refused = 0
        self._logged = 0.0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if not self._service.full:
            await self._application(scope, receive, send)
            return
        exchange = Exchange(read_headers(scope["headers"]), receive, send, time.monotonic())
        error = Overloaded(f"{self._service.in_flight} requests are being worked on; retry later")
        problem = problem_of(error, exchange.request_id)
        await exchange.fail(problem)
        self._metrics.request(problem.status)
        self._note(exchange.arrived)

    def _note(self, now: float) -> None:
        self._refused += 1
        if now - self._logged >= LOG_EVERY_S:
            logger.warning("no room: %d requests refused", self._refused)
            self._refused, self._logged = 0, now
