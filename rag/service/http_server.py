"""The HTTP server under the application: uvicorn on uvloop and httptools, its port, its limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop

from rag.errors import ConfigurationError

BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than the platform's pauses between requests, which reuse connections."""
HANG_UP_S = 1
"""For connections to close once their requests have ended."""


class Server(uvicorn.Server):
    """Serves `app` on the sockets that it is given; signals are left to the process."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                http="httptools",
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=HANG_UP_S,
            )
        )

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
