"""Checklist 19 to 23: streams, and generators that fail, hang or are left alone."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest

from rag.models.openai_generator import OpenAIGenerator
from rag.service import invocations, replies

FRAMES = {
    "passages": replies.PassagesFrame,
    "delta": replies.DeltaFrame,
    "done": replies.DoneFrame,
    "error": replies.ErrorFrame,
}


def test_an_endpoint_answers(launch: Any, endpoint: Any) -> None:
    with launch(generator=endpoint.generator("fine")) as running:
        reply = running.ask().json()
    assert reply["answer"] == "Hold the power button [1]."
    assert reply["generator"] == "fine"
    assert reply["citations"][0]["passages"] == [1]


@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        ("500", 502, "generator_unavailable"),
        ("429", 502, "generator_throttled"),
        ("401", 502, "generator_failure"),
        ("garbage", 502, "generator_protocol_error"),
        ("hang", 504, "generator_timeout"),
    ],
)
def test_item_19_a_failing_generator_leaves_the_passages(
    launch: Any, endpoint: Any, behaviour: str, status: int, kind: str
) -> None:
    with launch(generator=endpoint.generator(behaviour)) as running:
        degraded = running.ask(deadline_ms=1000)
        assert degraded.status_code == 200
        reply = degraded.json()
        replies.InvocationReply.model_validate(reply)
        assert reply["answer"] is None
        assert reply["citations"] == []
        assert reply["passages"]
        assert len(reply["degraded"]) == 1
        reason = kind.removeprefix("generator_")
        assert reply["degraded"][0].startswith(f"generator: {reason}: ")
        failed = running.ask(deadline_ms=1000, on_generator_failure="error")
        assert failed.status_code == status
        assert failed.json()["error"]["type"] == kind
        assert "rag_degraded_total" in running.client.get("/metrics").text


def test_item_19_a_generator_that_keeps_no_deadline_is_cut_off(launch: Any) -> None:
    closed = threading.Event()

    class Stubborn:
        name = "stubborn"

        async def stream(self, prompt: Any, *, deadline: float) -> Any:
            import asyncio

            try:
                await asyncio.sleep(600)
                yield
            finally:
                closed.set()

        async def aclose(self) -> None:
            pass

    with launch(generator=Stubborn()) as running:
        reply = running.ask(deadline_ms=500).json()
        assert reply["answer"] is None
        assert "deadline" in reply["degraded"][0]
        assert closed.wait(30)


def test_item_20_without_network_retrieval_works_and_generation_fails_typed(launch: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = OpenAIGenerator(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", "m")
        with launch(generator=nobody) as running:
            reply = running.ask().json()
            assert reply["answer"] is None
            assert reply["passages"]
            assert reply["timings_ms"]["generate"] < 5000
            failed = running.ask(on_generator_failure="error")
            assert failed.status_code == 502
            assert failed.json()["error"]["type"] == "generator_unavailable"
            assert running.ask(mode="retrieve").status_code == 200


def test_frames_are_passages_deltas_done(server: Any) -> None:
    frames = server.frames(headers={"x-request-id": "s-1"})
    for frame in frames:
        FRAMES[frame["type"]].model_validate(frame)
    assert [frame["type"] for frame in frames[:1] + frames[-1:]] == ["passages", "done"]
    assert {frame["type"] for frame in frames[1:-1]} == {"delta"}
    done = frames[-1]
    assert "".join(frame["text"] for frame in frames[1:-1]) == done["answer"]
    whole = server.ask().json()
    assert frames[0]["passages"] == whole["passages"]
    assert (done["answer"], done["citations"]) == (whole["answer"], whole["citations"])
    assert done["request_id"] == frames[0]["request_id"] == "s-1"
    assert done["timings_ms"]["total"] > 0


def test_a_stream_of_passages_alone_has_no_answer(server: Any) -> None:
    frames = server.frames(mode="retrieve")
    assert [frame["type"] for frame in frames] == ["passages", "done"]
    assert "answer" not in frames[1]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*", "text/event-stream"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/x-ndjson, text/event-stream;q=0.5", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
    ],
)
def test_streams_are_what_accept_asks_for(server: Any, accept: str, kind: str) -> None:
    response = server.ask(stream=True, headers={"accept": accept})
    assert response.headers["content-type"] == kind
    assert "content-length" not in response.headers
    if kind != "text/event-stream":
        return
    events = [event.split("\n") for event in response.text.strip().split("\n\n")]
    for name, data in events:
        assert name.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


def test_a_stream_as_plain_json_is_406(server: Any) -> None:
    assert server.ask(stream=True, headers={"accept": "application/json"}).status_code == 406


def test_item_21_the_first_chunk_leaves_before_the_last_is_made(launch: Any, endpoint: Any) -> None:
    with launch(generator=endpoint.generator("stepwise")) as running:
        body = {"query": "reset the lamp", "stream": True}
        with running.client.stream("POST", "/invocations", json=body) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines))["type"] == "passages"
            assert json.loads(next(lines))["text"].strip() == "Hold"
            assert not endpoint.go_on.is_set()
            endpoint.go_on.set()
            assert json.loads(list(lines)[-1])["answer"] == "Hold the power button [1]."


def test_item_22_failure_before_the_stream_has_a_status(launch: Any, endpoint: Any) -> None:
    def fail(texts: Any) -> None:
        if "boom" in texts[0]:
            raise RuntimeError

    with launch(generator=endpoint.generator("500"), before=fail) as running:
        assert running.ask("boom", stream=True).status_code == 500
        assert running.ask(stream=True, top_k=0).status_code == 400
        failed = running.ask(stream=True, on_generator_failure="error")
        assert failed.status_code == 502
        frames = running.frames()
        assert [frame["type"] for frame in frames] == ["passages", "done"]
        assert frames[1]["answer"] is None
        assert frames[1]["degraded"]


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_item_22_failure_within_the_stream_is_a_frame(
    launch: Any, endpoint: Any, accept: str
) -> None:
    with launch(generator=endpoint.generator("garbage")) as running:
        response = running.ask(stream=True, headers={"accept": accept, "x-request-id": "s-2"})
        assert response.status_code == 200
        text = response.text.replace("event: error\ndata: ", "").strip()
        last = json.loads(text.splitlines()[-1])
        replies.ErrorFrame.model_validate(last)
        assert last["error"]["type"] == "generator_protocol_error"
        assert last["error"]["request_id"] == "s-2"
        metrics = running.client.get("/metrics").text
        assert 'rag_requests_total{bundle="",status="502"} 1.0' in metrics


@pytest.mark.parametrize("stream", [False, True])
def test_item_23_a_client_that_leaves_cancels_its_work(
    launch: Any, endpoint: Any, stream: bool
) -> None:
    with launch(generator=endpoint.generator("hang")) as running:
        connection = send(running, query="lamp", stream=stream)
        assert endpoint.entered.wait(60)
        connection.close()
        assert endpoint.left.wait(60)
        while running.service.in_flight:
            time.sleep(0.005)
        assert (
            'rag_requests_total{bundle="",status="499"} 1.0' in running.client.get("/metrics").text
        )


def send(running: Any, **body: Any) -> socket.socket:
    """A connection on which a request has been sent and nothing been read."""
    data = json.dumps(body).encode()
    head = f"POST /invocations HTTP/1.1\r\nhost: a\r\ncontent-length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    connection.sendall(head.encode() + data)
    return connection


def test_item_23_nothing_is_embedded_for_a_client_that_left(launch: Any) -> None:
    entered, go_on, seen = threading.Event(), threading.Event(), []

    def block(texts: Any) -> None:
        seen.extend(texts)
        entered.set()
        go_on.wait(60)

    with launch(before=block) as running:
        first = send(running, query="first", mode="retrieve")
        assert entered.wait(60)
        leaves = send(running, query="leaves", mode="retrieve")
        while running.service.engine.depth != 1:
            time.sleep(0.005)
        leaves.close()
        while running.service.engine.depth != 0:
            time.sleep(0.005)
        go_on.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        first.close()
        assert running.ask("last", mode="retrieve").status_code == 200
        assert seen == ["first", "last"]


def test_a_reader_that_reads_nothing_is_given_up(
    launch: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocations, "READER_GRACE_S", 0.2)
    with launch(generator=endpoint.generator("flood")) as running:
        with send(running, query="lamp", stream=True, deadline_ms=500):
            assert endpoint.entered.wait(60)
            while running.service.in_flight:
                time.sleep(0.005)
        assert running.ask(mode="retrieve").status_code == 200
