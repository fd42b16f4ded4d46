"""Reading a request's body under a cap, and noticing that its sender has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rag.errors import DeadlineExceeded, PayloadTooLarge

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):
    """The client closed its connection; nobody is there to answer."""


async def read_body(
    receive: Receive, *, length: int | None, most_bytes: int, deadline: float
) -> bytes:
    """The whole body, of a declared `length` or chunked.

    Raises PayloadTooLarge as soon as it is known to be, DeadlineExceeded when it does not arrive
    in time, and ClientLeft.
    """
    if length is not None and length > most_bytes:
        raise _too_large(most_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part = message.get("body", b"")
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts) if len(parts) > 1 else part
    except TimeoutError:
        raise DeadlineExceeded(
            "the body did not arrive before the deadline; send it faster"
        ) from None


async def client_left(receive: Receive) -> None:
    """Returns when the client has closed its connection; call after the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(most_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"body is larger than {most_bytes} bytes; split it")
