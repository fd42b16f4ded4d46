"""Refusals while there is no room: at once, before anything else is done, and without a log line
for each, so that a flood costs those who are being served as little as possible.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from rag.errors import Overloaded
from rag.service.body import Receive
from rag.service.errors import Problem, problem_of
from rag.service.metrics import Metrics
from rag.service.negotiation import (
    CUSTOM_ATTRIBUTES,
    JSON,
    Headers,
    read_headers,
    request_id_of,
    sanitised,
)
from rag.service.state import Service
from rag.service.streaming import Exchange, Send, head_of

logger = logging.getLogger(__name__)
LOG_EVERY_S = 1.0
SHORT_BYTES = 1 << 16
"""Of a body that is waited for only to be refused."""
_HEAD = re.compile(
    rb"POST /invocations HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n)+\r\n"
)
# What decides where a request ends or what its sender expects, and what a reply repeats.
_NOTED = re.compile(
    rb"\n(content-length|transfer-encoding|expect|connection|upgrade"
    rb"|x-request-id|" + re.escape(CUSTOM_ATTRIBUTES) + rb"):[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
_REPEATED = frozenset({b"x-request-id", CUSTOM_ATTRIBUTES})

Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]


class Reply(NamedTuple):
    """A reply as it is sent: its status line and headers, each with its line end, and its body."""

    head: bytes
    body: bytes


WAIT = Reply(b"", b"")


class Refusals:
    """Whether a question is refused for want of room, and what is said then; counts them."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._refused = 0
        self._logged = 0.0
        self._said: tuple[int, Problem] | None = None
        """What was said last, and at how many requests."""

    @property
    def due(self) -> bool:
        """Whether there is no room."""
        return self._service.full

    def problem(self) -> Problem:
        """One more refusal."""
        in_flight = self._service.in_flight
        if self._said is None or self._said[0] != in_flight:
            error = Overloaded(f"{in_flight} requests are being worked on; retry later")
            self._said = in_flight, problem_of(error, "")
        problem = self._said[1]
        self._metrics.request(problem.status)
        self._refused += 1
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_S:
            logger.warning("no room: %d requests refused", self._refused)
            self._refused, self._logged = 0, now
        return problem

    def reply(self, request: bytes) -> Reply | None:
        """The reply to `request`, which is what has been received; no reply, but WAIT, while the
        rest of its body is on its way.

        None where that is not just one question with a short body of a stated length, and is to be
        read by somebody who knows more of HTTP.
        """
        head = _HEAD.match(request)
        if head is None:
            return None
        found = _NOTED.findall(request, 0, head.end())
        noted = {name.lower(): value.strip() for name, value in found}
        stated = noted.pop(b"content-length", b"")
        if len(noted) + 1 != len(found) or not stated.isdigit() or not noted.keys() <= _REPEATED:
            return None
        length, received = int(stated), len(request) - head.end()
        if received > length:
            return None
        if received < length:
            return WAIT if length <= SHORT_BYTES else None
        attributes = noted.get(CUSTOM_ATTRIBUTES, b"").decode("latin-1")
        named = noted.get(b"x-request-id", b"").decode("latin-1")
        headers = Headers("", "", attributes, named, None)
        request_id = request_id_of(headers)
        problem = self.problem()
        content = problem.to_json(request_id)
        own = [(b"content-length", b"%d" % len(content)), *problem.headers]
        told = head_of(JSON, request_id, sanitised(headers.attributes), own)
        lines = [b"HTTP/1.1 429 Too Many Requests", *(b"%s: %s" % pair for pair in told)]
        return Reply(b"\r\n".join([*lines, b""]), content)


class Refusing:
    """An ASGI application in front of another one, which it calls while there is room."""

    def __init__(self, application: Application, refusals: Refusals) -> None:
        self._application = application
        self._refusals = refusals

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if not self._refusals.due:
            await self._application(scope, receive, send)
            return
        exchange = Exchange(read_headers(scope["headers"]), receive, send, time.monotonic())
        await exchange.fail(self._refusals.problem())
