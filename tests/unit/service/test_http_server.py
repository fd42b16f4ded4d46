"""What the server does to a connection, with asyncio's own transports over real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from rag.service.http_server import Joining

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Counted:
    """A transport of asyncio's; notes what it is given to write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
        self._transport.write(data)


async def connected() -> tuple[Joining, Counted, socket.socket]:
    """A transport, what is under it, and the other end of its connection."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    counted = Counted(transport)
    theirs.setblocking(False)
    return Joining(counted, loop), counted, theirs


def test_the_head_leaves_with_the_body() -> None:
    async def scenario() -> None:
        joining, counted, theirs = await connected()
        joining.write(HEAD)
        joining.write(b"body")
        assert counted.pieces == [HEAD + b"body"]
        joining.write(b"more")
        assert counted.pieces[1:] == [b"more"]
        joining.close()
        loop = asyncio.get_running_loop()
        found = b""
        while part := await loop.sock_recv(theirs, 4096):
            found += part
        assert found == HEAD + b"bodymore"
        theirs.close()

    asyncio.run(scenario())


def test_a_head_alone_leaves_with_the_next_turn_of_the_loop() -> None:
    async def scenario() -> None:
        joining, counted, theirs = await connected()
        joining.write(HEAD)
        assert counted.pieces == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert counted.pieces == [HEAD]
        joining.write(b"data: late\n\n")
        assert counted.pieces[1:] == [b"data: late\n\n"]
        joining.close()
        theirs.close()

    asyncio.run(scenario())


def test_closing_loses_no_head() -> None:
    async def scenario() -> None:
        joining, counted, theirs = await connected()
        joining.write(HEAD)
        joining.close()
        assert counted.pieces == [HEAD]
        assert joining.is_closing()
        theirs.close()

    asyncio.run(scenario())
