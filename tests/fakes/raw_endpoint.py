"""A fake endpoint at the wire: raw asyncio TCP, so that it can break the protocol."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeEndpoint:
    """Reads one request after the other and lets `reply` answer them, however wrongly."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[tuple[str, dict[str, object]]] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(not task.done() for task in self.tasks)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
                self.requests.append((head, json.loads(await reader.readexactly(length))))
                await self.reply(reader, writer)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def fake_endpoint(reply: Reply) -> AsyncIterator[FakeEndpoint]:
    endpoint = FakeEndpoint(reply)
    server = await asyncio.start_server(endpoint.accept, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
        for task in endpoint.tasks:
            task.cancel()
        await asyncio.gather(*endpoint.tasks, return_exceptions=True)


def says(
    *parts: bytes | float,
    status: str = "200 OK",
    kind: str = "text/event-stream",
    end: str = "chunked",
    headers: str = "",
) -> Reply:
    """Sends the parts; numbers are pauses in seconds. `end`: 'chunked' (a proper end), 'eof' (a
    body that ends with the connection), 'drop' (a chunked body cut off), 'reset'. `headers` are
    lines, each with its line break.
    """

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunked = end in ("chunked", "drop", "reset")
        framing = "Transfer-Encoding: chunked\r\n\r\n" if chunked else "Connection: close\r\n\r\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{headers}{framing}"
        writer.write(head.encode())
        for part in parts:
            if isinstance(part, float):
                await writer.drain()
                if await _sleep_or_gone(reader, part):
                    raise ConnectionError
            else:
                writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        if end == "chunked":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if end == "reset":
            reset(writer)
        if end in ("eof", "drop"):
            writer.close()

    return reply


def in_turn(*replies: Reply) -> Reply:
    """One reply after the other; the last stays."""
    left = list(replies)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return reply


def reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hangs before the response's head."""
    await reader.read()


async def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def not_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n\r\n")
    await writer.drain()
    writer.close()


async def _sleep_or_gone(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return not await reader.read(1)
    except TimeoutError:
        return False
