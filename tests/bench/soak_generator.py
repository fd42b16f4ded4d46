"""A chat endpoint at the wire, for the soak: most of its answers are fine."""

from __future__ import annotations

import asyncio
import json


class Faults:
    """A fake chat endpoint at the wire: most answers are fine, the others broken in turn."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.count += 1
                await self._answer(self.count, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, number: int, writer: asyncio.StreamWriter) -> None:
        fault = {3: "500", 7: "reset", 11: "garbage", 15: "cut", 19: "429", 23: "slow"}
        what = fault.get(number % 29, "fine")
        if what == "reset":
            writer.transport.abort()
            return
        if what in ("500", "429"):
            writer.write(f"HTTP/1.1 {what} No\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for word in ("The ", "documents ", "say ", "so ", "[1]."):
            chunk = {"choices": [{"index": 0, "delta": {"content": word}}]}
            self._event(writer, json.dumps({"object": "chat.completion.chunk"} | chunk))
            await writer.drain()
            if what == "slow":
                await asyncio.sleep(0.2)
            if what == "garbage":
                self._event(writer, "{nope")
            if what == "cut":
                writer.transport.abort()
                return
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        self._event(writer, json.dumps(last))
        self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    def _event(self, writer: asyncio.StreamWriter, data: str) -> None:
        if writer.is_closing():
            raise ConnectionResetError("the service has left")
        event = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
