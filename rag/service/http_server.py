"""The HTTP server under the application: uvicorn on uvloop and httptools, its port, its limits,
and what is refused before it is parsed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rag.errors import ConfigurationError
from rag.service.refusing import WAIT, Refusals
from rag.service.streaming import CONNECTION

BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than the platform's pauses between requests, which reuse connections."""
HANG_UP_S = 1
"""For connections to close once their requests have ended."""


class Joining:
    """A transport that sends the head of a reply and the body that follows at once in one piece,
    for a piece costs as much as the parsing of a request. A head alone leaves with the loop's next
    turn.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)


class Protocol(HttpToolsProtocol):
    """One connection (see `rag.service.streaming.Connection`). While there is no room, a question
    that arrives whole is refused as it is: parsing it and calling the application would cost
    several times as much, and those who are being served would pay for it.
    """

    config: Config

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._between = True
        """Whether the parser has read nothing of the next request."""
        self._held = b""
        """What has been received and not been parsed, of a question that is to be refused."""
        self._plain: Any = None
        """The transport as it is: a reply that is whole waits for nothing."""
        self._quiet_since = 0.0
        self._watching: list[Callable[[], None]] = []
        self._lost = False

    def connection_made(self, transport: Any) -> None:
        self._plain = transport
        super().connection_made(cast(asyncio.Transport, Joining(transport, self.loop)))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        for leave in self._watching:
            leave()

    def watch(self, leave: Callable[[], None]) -> None:
        self._watching.append(leave)
        if self._lost:
            leave()

    def unwatch(self, leave: Callable[[], None]) -> None:
        self._watching.remove(leave)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cast(dict[str, Any], self.scope)[CONNECTION] = self

    def data_received(self, data: bytes) -> None:
        data, self._held = self._held + data, b""
        if not (self.config.refusals.due and self._between and self._refuse(data)):
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = True

    def _refuse(self, data: bytes) -> bool:
        """Answers `data` if it is one question that nothing stands before, or holds it until the
        question is whole.
        """
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.flow.write_paused or self.transport.is_closing():
            return False
        reply = self.config.refusals.reply(data)
        if reply is None:
            return False
        # A sender who never sends the rest does not keep the connection for it either.
        self._close_if_quiet()
        if reply is WAIT:
            self._held = data
            return True
        default = b"".join(b"%s: %s\r\n" % pair for pair in self.server_state.default_headers)
        self._plain.write(b"".join((reply.head, default, b"\r\n", reply.body)))
        self.server_state.total_requests += 1
        return True

    def _close_if_quiet(self) -> None:
        """Closes the connection when nothing has come for as long as it may be kept alive. A timer
        that runs already is not stopped for it, which would cost a part of what a refusal does.
        """
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._start_timer(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        left = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._start_timer(left)
        else:
            super().timeout_keep_alive_handler()

    def _start_timer(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )


class Config(uvicorn.Config):
    """uvicorn's, with what the protocol refuses by."""

    def __init__(self, app: Any, refusals: Refusals) -> None:
        super().__init__(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            http=Protocol,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=HANG_UP_S,
        )
        self.refusals = refusals


class Server(uvicorn.Server):
    """Serves `app` on the sockets that it is given; signals are left to the process."""

    def __init__(self, app: Any, refusals: Refusals) -> None:
        super().__init__(Config(app, refusals))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves them alone: after a drain the process ends with 0, not by a signal."""
        yield


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop that a server runs on."""
    return uvloop.new_event_loop()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigurationError when the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error}; set RAG_HOST and RAG_PORT"
        ) from None
    # Inherited by every connection: head and body are two writes, and the second must not wait
    # for the client to acknowledge the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
