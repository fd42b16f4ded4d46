"""Traces as an OTLP receiver over HTTP gets them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rag.service.tracing import Tracing

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{CALLER}-00f067aa0ba902b7-01"


class Receiver:
    """A receiver of OTLP over HTTP, protobuf, on a real port; it keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def take(self, export: ExportTraceServiceRequest) -> None:
        for resource in export.resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def test_stages_are_spans_of_the_callers_trace(launch: Any, receiver: Receiver) -> None:
    tracing = Tracing(receiver.url)
    with launch(tracing=tracing) as running:
        asked = running.ask(headers={"traceparent": TRACEPARENT, "x-request-id": "r-1"})
        assert asked.status_code == 200
        tracing.flush()
    assert receiver.services == {"rag-containers"}
    (root,) = receiver.named("POST /invocations")
    assert root.trace_id.hex() == CALLER
    assert root.parent_span_id.hex() == "00f067aa0ba902b7"
    assert attributes(root)["http.response.status_code"] == 200
    assert attributes(root)["rag.request_id"] == "r-1"
    stages = [receiver.named(name)[0] for name in ("queue", "embed", "search", "generate")]
    assert {span.parent_span_id for span in stages} == {root.span_id}
    times = [moment for s in stages for moment in (s.start_time_unix_nano, s.end_time_unix_nano)]
    assert times == sorted(times)
    assert root.start_time_unix_nano <= times[0]
    assert times[-1] <= root.end_time_unix_nano
    text = str(receiver.spans)
    assert "reset the lamp" not in text
    assert "power button" not in text


def test_each_record_of_a_batch_is_a_span(launch: Any, receiver: Receiver) -> None:
    tracing = Tracing(receiver.url)
    with launch(tracing=tracing) as running:
        running.post(b'{"query": "lamp", "mode": "retrieve"}\n{"query": ""}', "application/jsonl")
        tracing.flush()
    (root,) = receiver.named("POST /invocations")
    assert [s.parent_span_id for s in receiver.named("record")] == [root.span_id] * 2
    (search,) = receiver.named("search")
    assert search.parent_span_id in {s.span_id for s in receiver.named("record")}


def test_failures_are_errors_and_the_ratio_is_kept(launch: Any, receiver: Receiver) -> None:
    def fail(texts: object) -> None:
        raise RuntimeError("internal detail")

    tracing = Tracing(receiver.url, ratio=0.0)
    with launch(tracing=tracing, before=fail) as running:
        assert running.ask().status_code == 500
        assert running.ask(headers={"traceparent": TRACEPARENT}).status_code == 500
        assert running.ask(headers={"traceparent": TRACEPARENT[:-1] + "0"}).status_code == 500
        tracing.flush()
    (root,) = receiver.named("POST /invocations")
    assert root.trace_id.hex() == CALLER
    assert root.status.code == 2
    assert "detail" not in str(receiver.spans)
