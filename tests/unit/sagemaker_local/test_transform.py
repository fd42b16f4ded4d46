"""How a file becomes payloads, and results become a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.errors import InvalidInput, ModelError
from sagemaker_local.hosting import Endpoint
from sagemaker_local.transform import MB, Plan, payloads, transform


class FakeContainer:
    """A fake of the remote side alone: its port leads to a server of this test."""

    def __init__(self, port: int) -> None:
        self._port = port

    def port(self, inside: int) -> int:
        return self._port


@pytest.fixture
def echo() -> Iterator[Any]:
    """An endpoint that answers each line with itself; `lose` lines fewer, `status` as told."""
    state: dict[str, Any] = {"status": 200, "lose": 0, "chunked": [], "parameters": None}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = 404 if state["parameters"] is None else 200
            self.reply(status, json.dumps(state["parameters"]).encode())

        def do_POST(self) -> None:
            state["chunked"].append("transfer-encoding" in self.headers)
            body = self.body()
            lines = body.splitlines(keepends=True)[state["lose"] :]
            self.reply(state["status"], b"".join(lines))

        def body(self) -> bytes:
            if "content-length" in self.headers:
                return self.rfile.read(int(self.headers["content-length"]))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    container: Any = FakeContainer(server.server_port)
    yield Endpoint(container), state
    server.shutdown()
    server.server_close()


def test_single_records_are_single_lines() -> None:
    assert list(payloads(b"a\nb\nc", Plan("SINGLE_RECORD"))) == [b"a\n", b"b\n", b"c"]


def test_many_records_fill_payloads() -> None:
    line = b"x" * (400 * 1024) + b"\n"
    parts = list(payloads(line * 5, Plan("MULTI_RECORD", 1)))
    assert [len(part) // len(line) for part in parts] == [2, 2, 1]
    assert b"".join(parts) == line * 5


def test_without_a_limit_all_is_one_payload() -> None:
    assert list(payloads(b"a\nb\n", Plan("SINGLE_RECORD", 0))) == [b"a\nb\n"]


def test_a_record_over_the_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="over 1 MB"):
        list(payloads(b"x" * (MB + 1), Plan("MULTI_RECORD", 1)))


def test_the_container_is_asked_and_the_user_wins(echo: Any) -> None:
    endpoint, state = echo
    assert Plan.ask(endpoint) == Plan("MULTI_RECORD", 6, 1)
    state["parameters"] = {
        "MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2,
    }  # fmt: skip
    assert Plan.ask(endpoint) == Plan("SINGLE_RECORD", 2, 8)
    assert Plan.ask(endpoint, concurrency=3) == Plan("SINGLE_RECORD", 2, 3)
    with pytest.raises(InvalidInput, match="100 MB"):
        Plan.ask(endpoint, max_payload_mb=20)


@pytest.mark.parametrize("plan", [Plan("SINGLE_RECORD", 6, 4), Plan(), Plan("MULTI_RECORD", 0)])
def test_results_are_joined_in_order(echo: Any, tmp_path: Path, plan: Plan) -> None:
    endpoint, state = echo
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"\n".join(b"%d" % i for i in range(50)))
    assert transform(endpoint, source, target, plan, content_type="text/plain") == 50
    assert target.read_bytes() == source.read_bytes() + b"\n"
    assert set(state["chunked"]) == {plan.max_payload_mb == 0}


def test_lost_results_and_refusals_are_errors(echo: Any, tmp_path: Path) -> None:
    endpoint, state = echo
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"a\nb\n")
    state["lose"] = 1
    with pytest.raises(InvalidInput, match="2 records gave 1 results"):
        transform(endpoint, source, target, Plan(), content_type="text/plain")
    state |= {"lose": 0, "status": 500}
    with pytest.raises(ModelError) as caught:
        transform(endpoint, source, target, Plan(), content_type="text/plain")
    assert (caught.value.status, caught.value.body) == (500, b"a\nb\n")
    assert not target.exists()
