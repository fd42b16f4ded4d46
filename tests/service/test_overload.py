"""What a full service answers on the wire, byte by byte, and what it still reads as ever."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

BODY = json.dumps({"query": "How do I reset the lamp?", "mode": "retrieve"}).encode()


@contextlib.contextmanager
def full(launch: Any) -> Iterator[tuple[Any, threading.Event]]:
    """A service whose only place is taken, and what frees it."""
    entered, go_on = threading.Event(), threading.Event()

    def block(texts: object) -> None:
        entered.set()
        go_on.wait(60)

    with launch(before=block, max_in_flight=1) as running, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(running.ask, mode="retrieve")
        try:
            assert entered.wait(60)
            yield running, go_on
        finally:
            go_on.set()
        assert asked.result().status_code == 200


def question(body: bytes = BODY, *headers: bytes, length: int | None = None) -> bytes:
    lines = (
        b"POST /invocations HTTP/1.1", b"Host: test", b"Content-Type: application/json",
        b"Content-Length: %d" % (len(body) if length is None else length), *headers,
    )  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> tuple[int, dict[str, str], Any]:
        while b"\r\n\r\n" not in self._data:
            self._read()
        head, _, rest = self._data.partition(b"\r\n\r\n")
        start, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        self._data = rest
        length = int(headers["content-length"])
        while len(self._data) < length:
            self._read()
        body, self._data = self._data[:length], self._data[length:]
        return int(start.split()[1]), headers, json.loads(body) if body else None

    def _read(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "the connection was closed"
        self._data += data


@pytest.fixture
def wires() -> Iterator[Any]:
    opened: list[Wire] = []

    def connect(port: int) -> Wire:
        opened.append(Wire(port))
        return opened[-1]

    yield connect
    for wire in opened:
        wire.socket.close()


def test_a_refusal_before_the_parser_is_the_refusal_behind_it(launch: Any, wires: Any) -> None:
    named = b"X-Amzn-SageMaker-Custom-Attributes: request_id=abc,api_key=secret,trace=7"
    with full(launch) as (running, go_on):
        wire = wires(running.port)
        told = []
        # Sent chunked, a question is parsed as ever; the same bytes of a stated length are not.
        for data in (
            question(BODY, named),
            question(BODY, named).replace(
                b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked"
            )[: -len(BODY)]
            + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        ):
            wire.send(data)
            status, headers, body = wire.reply()
            headers.pop("date")
            told.append((status, dict(sorted(headers.items())), body))
        assert told[0] == told[1]
        status, headers, body = told[0]
        assert (status, body["error"]["type"]) == (429, "overloaded")
        assert body["error"]["request_id"] == headers["x-request-id"] == "abc"
        assert headers["x-amzn-sagemaker-custom-attributes"] == "request_id=abc,trace=7"
        assert int(headers["retry-after"]) >= 1
        assert 'rag_requests_total{bundle="",status="429"} 2.0' in running.metrics.render().decode()
        # The connection lives on, and so does the service.
        go_on.set()
        while running.service.in_flight:
            time.sleep(0.005)
        wire.send(question())
        assert wire.reply()[0] == 200


def test_a_body_that_comes_in_parts_is_waited_for(launch: Any, wires: Any) -> None:
    with full(launch) as (running, go_on):
        wire = wires(running.port)
        data = question()
        for place in (len(data) - len(BODY), len(data) - 5):
            wire.send(data[:place])
            time.sleep(0.05)
            wire.send(data[place:])
            assert wire.reply()[0] == 429
        # Where room is made meanwhile, it is a question like any other.
        wire.send(data[:-5])
        time.sleep(0.05)
        go_on.set()
        while running.service.in_flight:
            time.sleep(0.005)
        wire.send(data[-5:])
        status, _, body = wire.reply()
        assert (status, body["passages"][0]["doc_id"]) == (200, "en/lamp.md")


def test_what_is_no_plain_question_is_read_as_ever(launch: Any, wires: Any) -> None:
    with full(launch) as (running, _):
        wire = wires(running.port)
        wire.send(b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.reply()[0] == 200
        # Two at once, and one whose head comes in parts.
        wire.send(question() + question())
        assert [wire.reply()[0] for _ in range(2)] == [429, 429]
        wire.send(question()[:40])
        time.sleep(0.05)
        wire.send(question()[40:])
        assert wire.reply()[0] == 429
        # Lengths that contradict each other are nobody's question.
        wire.send(question(BODY, b"Content-Length: 1"))
        assert b" 400 " in wire.socket.recv(1 << 16)
        other = wires(running.port)
        other.send(question(BODY, b"Connection: close"))
        assert other.reply()[0] == 429
        assert other.socket.recv(1) == b""


def test_who_never_sends_the_rest_is_hung_up_on(launch: Any, wires: Any) -> None:
    with full(launch) as (running, _):
        running.server.config.timeout_keep_alive = 0.2
        wire = wires(running.port)
        wire.send(question()[:-5])
        assert wire.socket.recv(1) == b""


def test_a_connection_on_which_refusals_go_on_stays_open(launch: Any, wires: Any) -> None:
    with full(launch) as (running, _):
        running.server.config.timeout_keep_alive = 1.0
        wire = wires(running.port)
        for _ in range(4):  # for longer than a quiet one would be kept
            wire.send(question())
            assert wire.reply()[0] == 429
            time.sleep(0.5)
        wire.socket.settimeout(20)
        began = time.monotonic()
        assert wire.socket.recv(1) == b""
        assert time.monotonic() - began < 10
