"""Reading a request's body under a cap, and noticing that its sender has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from rag.errors import DeadlineExceeded, PayloadTooLarge

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

SILENCE_S = 60.0
"""For the next part of a body to come, where its sender may take as long as it likes."""


class ClientLeft(Exception):
    """The client closed its connection; nobody is there to answer."""


async def read_body(
    receive: Receive, *, length: int | None, most_bytes: int, deadline: float
) -> bytes:
    """The whole body, until `deadline`, a `time.monotonic()` moment; raises what `body_parts`
    raises.
    """
    _check_length(length, most_bytes)
    read: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline):
            more = True
            while more:
                part, more = await _next(receive)
                read.append(part)
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
    except TimeoutError:
        raise _late() from None
    return b"".join(read) if len(read) > 1 else read[0]


async def body_parts(
    receive: Receive, *, length: int | None, most_bytes: int, deadline: float | None
) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, of a declared `length` or chunked; at least one part.

    `deadline` is a `time.monotonic()` moment; None: only a silence of SILENCE_S is too long.
    Raises PayloadTooLarge as soon as it is known to be, DeadlineExceeded when it does not arrive
    in time, and ClientLeft.
    """
    _check_length(length, most_bytes)
    size, more = 0, True
    while more:
        until = deadline
        if until is None:
            until = asyncio.get_running_loop().time() + SILENCE_S
        try:
            async with asyncio.timeout_at(until):
                part, more = await _next(receive)
        except TimeoutError:
            raise _late() from None
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        yield part


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next part, and whether there is more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message.get("body", b""), message.get("more_body", False)


def _check_length(length: int | None, most_bytes: int) -> None:
    if length is not None and length > most_bytes:
        raise _too_large(most_bytes)


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the body did not arrive before the deadline; send it faster")


def _too_large(most_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"body is larger than {most_bytes} bytes; split it")
