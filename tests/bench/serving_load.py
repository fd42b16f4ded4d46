"""Load: wrk or httpx2 for closed loops, wrk for floods, a raw asyncio client for single requests
and open loops.

wrk is Debian's package (`apt-get install wrk`); it costs some 10 microseconds a request, httpx2, as
a service in Python would ask, about a millisecond.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import time
from collections import defaultdict, deque
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import uvloop

_SCRIPT = Path(__file__).with_name("serving_post.lua")
_FLOOD = Path(__file__).with_name("serving_flood.lua")


def closed_loop(port: int, queries: Path, *, clients: int, seconds: float, start: int = 0) -> Any:
    """What wrk's script reports, and `rate`, replies with 200 a second."""
    command = [
        "wrk", "-t1", f"-c{clients}", f"-d{seconds:g}", "--timeout", "30", "-s", str(_SCRIPT),
        f"http://127.0.0.1:{port}/invocations",
    ]  # fmt: skip
    environment = os.environ | {"QUERIES": str(queries), "START": str(start)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    good = report["requests"] - report["refused"]
    return report | {"rate": good / report["seconds"]}


async def _httpx_loop(port: int, bodies: list[bytes], clients: int, seconds: float) -> float:
    headers = {"content-type": "application/json"}
    done = 0

    async def ask(first: int, end: float) -> None:
        nonlocal done
        at = first
        # A client each: one client's pool of 64 connections takes several times as long.
        async with httpx2.AsyncClient(timeout=60, headers=headers, verify=False) as client:
            while time.perf_counter() < end:
                url = f"http://127.0.0.1:{port}/invocations"
                reply = await client.post(url, content=bodies[at % len(bodies)])
                reply.raise_for_status()
                at += clients
                done += 1

    began = time.perf_counter()
    await asyncio.gather(*(ask(first, began + seconds) for first in range(clients)))
    return done / (time.perf_counter() - began)


def httpx_rate(port: int, queries: Path, *, clients: int, seconds: float, start: int = 0) -> float:
    """Replies a second to as many httpx2.AsyncClients in one other process."""
    bodies = queries.read_bytes().splitlines()
    bodies = bodies[start % len(bodies) :] + bodies[: start % len(bodies)]
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(_httpx_rate, port, bodies, clients, seconds).result()


def _httpx_rate(port: int, bodies: list[bytes], clients: int, seconds: float) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_httpx_loop(port, bodies, clients, seconds))


def flood(
    port: int, queries: Path, *, rate: float, seconds: float, connections: int, in_flight: int
) -> Any:
    """About `rate` requests a second, most of which are refused: what wrk's script reports.

    Of the connections `in_flight` wait for an answer; the others ask again after a while, at random
    moments.
    """
    idle = max(1, connections - in_flight)
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}", "--timeout", "60", "-s", str(_FLOOD),
        f"http://127.0.0.1:{port}/invocations",
    ]  # fmt: skip
    environment = os.environ | {"QUERIES": str(queries), "DELAY_MS": f"{1e3 * idle / rate:.0f}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def request_bytes(body: bytes) -> bytes:
    return (
        b"POST /invocations HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


class Alone:
    """One connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> tuple[float, dict[str, float]]:
        """Milliseconds until the whole reply is there, and what it says of where they went;
        SystemExit unless it is a 200.
        """
        request = request_bytes(body)
        began = time.perf_counter()
        self._socket.sendall(request)
        data = self._socket.recv(1 << 16)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._socket.recv(1 << 16)
        length = _content_length(data[:end])
        while len(data) < end + 4 + length:
            data += self._socket.recv(1 << 18)
        took = (time.perf_counter() - began) * 1e3
        if not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(data.decode())
        return took, json.loads(data[end + 4 :])["timings_ms"]

    def close(self) -> None:
        self._socket.close()


def _content_length(head: bytes) -> int:
    at = head.lower().index(b"content-length:") + 15
    return int(head[at : head.find(b"\r", at) if b"\r" in head[at:] else len(head)])


class _Connection(asyncio.Protocol):
    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._data = bytearray()
        self._began = 0.0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, request: bytes, began: float) -> None:
        self._began = began
        self._data.clear()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or len(self._data) < end + 4 + _content_length(bytes(self._data[:end])):
            return
        status = int(self._data[9:12])
        self._pool.took[status].append((time.perf_counter() - self._began) * 1e3)
        self._pool.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost += 1


class _Pool:
    """Connections that are free; a new one is opened where there is none."""

    def __init__(self, port: int) -> None:
        self.idle: deque[_Connection] = deque()
        self.took: dict[int, list[float]] = defaultdict(list)
        self.lost = 0
        self._port = port

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        self.idle.append(made)


async def _open_loop(
    port: int, bodies: list[bytes], rate: float, seconds: float, connections: int
) -> dict[str, Any]:
    pool = _Pool(port)
    for _ in range(connections):
        await pool.open()
    requests = [request_bytes(body) for body in bodies]
    chance = random.Random(3)
    began = due = time.perf_counter()
    sent = late = 0
    while due < began + seconds:
        now = time.perf_counter()
        if now < due:
            await asyncio.sleep(min(due - now, 0.001))
            continue
        if pool.idle:
            # From the moment it was due: a generator that falls behind must not hide waiting.
            pool.idle.popleft().send(requests[sent % len(requests)], due)
            sent += 1
        else:
            late += 1
        due += chance.expovariate(rate)
    deadline = time.perf_counter() + 60
    while sum(map(len, pool.took.values())) < sent and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    took_s = time.perf_counter() - began
    report: dict[str, Any] = {"sent": sent, "no_connection": late, "lost": pool.lost}
    report |= {"seconds": round(seconds, 2), "until_answered_s": round(took_s, 2)}
    for status, took in sorted(pool.took.items()):
        p50, p99 = np.percentile(took, [50, 99])
        report[str(status)] = {"count": len(took), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
    return report


def open_loop(
    port: int, bodies: list[bytes], *, rate: float, seconds: float, connections: int
) -> dict[str, Any]:
    """Requests at random moments (a Poisson process), whether or not earlier ones are answered.

    Replies by status: how many, and their latencies.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_open_loop(port, bodies, rate, seconds, connections))
