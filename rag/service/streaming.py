"""Replies onto the connection: whole ones, and streams of newline-delimited or SSE frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol

from rag import logs
from rag.service.body import ClientLeft, Receive, read_body
from rag.service.errors import Problem
from rag.service.negotiation import (
    CUSTOM_ATTRIBUTES,
    EVENTS,
    JSON,
    NDJSON,
    Headers,
    credential_of,
    named_request_id,
    request_id_of,
    sanitised,
)
from rag.service.replies import dumps
from rag.service.schemas import Limits

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
STREAMS = (NDJSON, EVENTS)
CONNECTION = "rag.connection"
"""What a server may put into a request's scope: its `Connection`."""
READER_PATIENCE_S = 60.0
"""For a client to read a piece of a long reply."""


class Connection(Protocol):
    """What a request came by."""

    def watch(self, leave: Callable[[], None]) -> None:
        """`leave` is called when the client closes the connection, or has closed it already."""
        ...

    def unwatch(self, leave: Callable[[], None]) -> None:
        """`leave` is not called any more."""
        ...


class Exchange:
    """One request and its reply under way, since `arrived`, a `time.monotonic()` moment.

    Each reply carries the request id and the sanitised custom attributes. `credential` is the API
    key of the headers, '' for none; `bundle` the name of the bundle that is asked.
    """

    def __init__(
        self,
        headers: Headers,
        receive: Receive,
        send: Send,
        arrived: float,
        bundle: str = "",
        connection: Connection | None = None,
    ) -> None:
        self.headers = headers
        self.receive = receive
        self.arrived = arrived
        self.bundle = bundle
        self.connection = connection
        self.credential = credential_of(headers)
        self.request_id = request_id_of(headers)
        self.status = 0
        """The status that was sent, or that a failure after it counts as; 0 before."""
        self.error_body: Callable[[Problem, str], Mapping[str, Any]] = Problem.body
        """The shape of this route's errors, from the problem and the request id."""
        self._send = send
        self._media_type = ""
        self._attributes = sanitised(headers.attributes)

    def named(self, request_id: str | None) -> None:
        """Takes over the id that a body gives, unless a header has given one."""
        if request_id and not named_request_id(self.headers):
            self.request_id = request_id
            logs.note(request_id=request_id)

    async def body(self, limits: Limits) -> bytes:
        """The whole body, within what `limits` allow; raises what `read_body` raises."""
        return await read_body(
            self.receive,
            length=self.headers.content_length,
            most_bytes=limits.max_payload_bytes,
            deadline=self.arrived + limits.default_deadline_ms / 1e3,
        )

    async def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        media_type: str = JSON,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Sends a whole reply."""
        length = (b"content-length", b"%d" % len(body))
        await self._start(status, media_type, [length, *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def open(self, media_type: str, *, frames: bool = True) -> None:
        """Sends the head of a stream; from here on, failures are frames. Without `frames`, they
        leave the stream without its end.
        """
        self._media_type = media_type if frames else ""
        unbuffered = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self._start(200, media_type, unbuffered)

    async def frame(self, frame: Mapping[str, Any]) -> None:
        """Sends one frame of a stream; `frame["type"]` names its kind."""
        data = dumps(frame)
        if self._media_type == EVENTS:
            data = b"event: %s\ndata: %s\n\n" % (str(frame["type"]).encode(), data)
        else:
            data += b"\n"
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def data(self, data: bytes) -> None:
        """Sends one unnamed server-sent event of a stream."""
        body = b"data: %s\n\n" % data
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def piece(self, data: bytes) -> None:
        """Sends a piece of a stream without frames; ClientLeft where nobody reads it for long."""
        try:
            async with asyncio.timeout(READER_PATIENCE_S):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise ClientLeft from None

    async def close(self, last: bytes = b"") -> None:
        """Ends a stream."""
        await self._send({"type": "http.response.body", "body": last})

    async def fail(self, problem: Problem) -> None:
        """Tells the client: by status, or by a last frame where a stream has begun."""
        if not self.status:
            body = dumps(self.error_body(problem, self.request_id))
            await self.reply(body, status=problem.status, headers=problem.headers)
        elif self._media_type:
            await self.frame({"type": "error", **problem.body(self.request_id)})
            await self.close()

    async def _start(
        self, status: int, media_type: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        self.status = status
        head = head_of(media_type, self.request_id, self._attributes, headers)
        await self._send({"type": "http.response.start", "status": status, "headers": head})


def head_of(
    media_type: str, request_id: str, attributes: str, headers: Iterable[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """The headers of every reply; `attributes` are the sanitised ones, '' for none."""
    head = [
        (b"content-type", media_type.encode()),
        (b"x-request-id", request_id.encode()),
        *headers,
    ]
    if attributes:
        head.append((CUSTOM_ATTRIBUTES, attributes.encode()))
    return head


@contextmanager
def watching(exchange: Exchange) -> Iterator[None]:
    """Cancels the work inside when the client leaves, and raises ClientLeft in its place.

    To be entered when the body has been read, and left before the reply ends. Under a server that
    does not say who leaves, it does nothing.
    """
    connection, task = exchange.connection, asyncio.current_task()
    if connection is None or task is None:
        yield
        return
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        task.cancel()

    connection.watch(leave)
    try:
        yield
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise ClientLeft from None
        raise
    finally:
        connection.unwatch(leave)
