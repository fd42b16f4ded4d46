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
from rag.service.negotiation import JSON, read_headers, request_id_of, sanitised
from rag.service.state import Service
from rag.service.streaming import Exchange, Send, head_of

logger = logging.getLogger(__name__)
LOG_EVERY_S = 1.0
QUESTION = b"POST /invocations HTTP/1.1"
SHORT_BYTES = 1 << 16
"""Of a body that is waited for only to be refused."""
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)")
# What decides where a request ends or what its sender expects, beside its length.
_FRAMING = frozenset({b"transfer-encoding", b"expect", b"connection", b"upgrade"})

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

    @property
    def due(self) -> bool:
        """Whether there is no room."""
        return self._service.full

    def problem(self, request_id: str) -> Problem:
        """One more refusal."""
        problem = problem_of(
            Overloaded(f"{self._service.in_flight} requests are being worked on; retry later"),
            request_id,
        )
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
        start, _, rest = request.partition(b"\r\n")
        head, end, body = rest.partition(b"\r\n\r\n")
        if not end or start != QUESTION:
            return None
        found = [_HEADER.fullmatch(line) for line in head.split(b"\r\n")]
        pairs = [(line[1].lower(), line[2].strip()) for line in found if line is not None]
        names = [name for name, _ in pairs]
        if len(pairs) != len(found) or not _FRAMING.isdisjoint(names):
            return None
        headers = read_headers(pairs)
        length = headers.content_length
        if length is None or names.count(b"content-length") != 1 or len(body) > length:
            return None
        if len(body) < length:
            return WAIT if length <= SHORT_BYTES else None
        request_id = request_id_of(headers)
        problem = self.problem(request_id)
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
        await exchange.fail(self._refusals.problem(exchange.request_id))
