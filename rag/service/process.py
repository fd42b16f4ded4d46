"""The process around the server: until a signal, through the drain, to the exit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable

from rag.service.http_server import Server

logger = logging.getLogger(__name__)

LINGER_S = 1
"""For an answer's thread to end once nobody waits for it."""


async def run_until(
    stop: asyncio.Event,
    server: Server,
    listener: socket.socket,
    drain: Callable[[], Awaitable[None]],
) -> None:
    """Accepts connections from now on; at a signal, or when `stop` is set, `drain` has its time
    before everything is closed.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    serving.add_done_callback(lambda _: stop.set())
    logger.info("listening on %s:%d", *listener.getsockname()[:2])
    await stop.wait()
    await drain()
    server.should_exit = True
    await serving


def end(code: int, *, clean: bool) -> int:
    """`code`; but a thread that is still inside a library must not hold the exit, or crash while
    the interpreter is torn down: then the process ends without that.
    """
    if not clean:
        logging.shutdown()
        os._exit(code)
    guard = threading.Timer(LINGER_S, os._exit, (code,))
    guard.daemon = True
    guard.start()
    return code
