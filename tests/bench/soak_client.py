"""The soak's clients: they ask what the mix says, and check every reply."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import orjson

MIX = {
    "retrieve": 72, "filtered": 8, "answer": 6, "stream": 4, "strict": 2, "leave": 3, "lines": 2,
    "bad": 3,
}  # fmt: skip
NEW = 0.05
"""Share of questions that were not asked before."""
EXPLAINED = {"strict": {502, 504}, "stream": {502, 504}}
"""5xx that the generator's faults explain, where a request asks to hear of them."""
TIMEOUT_S = 90.0


class Client:
    """One connection after the other; checks every reply."""

    def __init__(self, port: int, ids: dict[str, str], queries: list[str], seed: int) -> None:
        self._port = port
        self._letters = {version: letter for letter, version in ids.items()}
        self._queries = queries
        self._seed = seed
        self._chance = random.Random(seed)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def ask(self) -> None:
        """One request of the mix."""
        kind = self._chance.choices(list(MIX), weights=list(MIX.values()))[0]
        body = self._body(kind)
        content_type = "application/jsonlines" if kind == "lines" else "application/json"
        try:
            async with asyncio.timeout(TIMEOUT_S):  # nothing hangs
                if kind == "leave":
                    await self._leave(body)
                    self.counts["leave"] += 1
                    return
                status, reply = await self._exchange(body, content_type)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self._drop()
            self.wrong.append(f"{kind}: {error!r}")
            return
        self.counts[f"{kind} {status}"] += 1
        self._check(kind, status, reply)

    def _body(self, kind: str) -> bytes:
        query, top_k = self._chance.choice(self._queries), self._chance.choice((1, 3, 10))
        if self._chance.random() < NEW:
            query += f" {self._seed} {self.counts.total()}"
        request: dict[str, Any] = {"query": query, "mode": "retrieve", "top_k": top_k}
        if kind in ("answer", "stream", "strict", "leave"):
            request["mode"] = "answer"
        if kind in ("stream", "leave"):
            request["stream"] = True
        if kind in ("strict", "stream"):
            request["on_generator_failure"] = "error"
        if kind == "filtered":
            request["filter"] = {"lang": self._chance.choice(("en", "ko"))}
        if kind == "bad":
            request["top_k"] = 0
        if kind == "lines":
            return b"\n".join(self._body("retrieve") for _ in range(4))
        return orjson.dumps(request)

    def _check(self, kind: str, status: int, reply: bytes) -> None:
        """Notes a reply that nothing explains."""
        if (status >= 500 and status not in EXPLAINED.get(kind, ())) or (
            (kind == "bad") != (status == 400) and status < 500
        ):
            self.wrong.append(f"{kind}: {status} {reply[:300]!r}")
        elif status == 200:
            lines = [orjson.loads(line) for line in reply.splitlines() if line]
            if kind == "lines" and len(lines) != 4:
                self.wrong.append(f"lines: {len(lines)} of 4")
            if kind == "stream" and lines[-1]["type"] not in ("done", "error"):
                self.wrong.append("stream: no end")
            versions = {line["index_version"] for line in lines if "index_version" in line}
            if kind != "lines" and len(versions) != 1:
                self.wrong.append(f"{kind}: {len(versions)} versions")
            for line in lines:
                self._check_versions(kind, line)

    def _check_versions(self, kind: str, line: dict[str, Any]) -> None:
        if "passages" not in line:
            return
        letters = {passage["metadata"]["generation"] for passage in line["passages"]}
        letter = self._letters[line["index_version"]]
        if letters - {letter} or letter == "x":
            self.wrong.append(f"{kind}: version {letter} answers with passages of {letters}")

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _send(self, body: bytes, content_type: str) -> asyncio.StreamReader:
        reader, writer = await self._open()
        head = "POST /invocations HTTP/1.1\r\nhost: a\r\n"
        head += f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader

    async def _exchange(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        reader = await self._send(body, content_type)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return status, await reader.readexactly(length)
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return status, b"".join(parts)

    async def _leave(self, body: bytes) -> None:
        """Asks, waits a moment or for the first bytes, and is gone."""
        reader = await self._send(body, "application/json")
        if self._chance.random() < 0.5:
            await asyncio.sleep(self._chance.random() * 0.02)
        else:
            await reader.readuntil(b"\r\n\r\n")
        self._drop()
