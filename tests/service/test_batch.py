"""Checklist, Batch: JSON Lines in and out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from rag.service.routes import batch_parameters
from rag.service.schemas import Limits

LINES = "application/jsonlines"


def record(query: str, **fields: Any) -> bytes:
    return json.dumps({"query": query, "mode": "retrieve", "top_k": 1} | fields).encode()


def test_item_26_execution_parameters(server: Any) -> None:
    parameters = server.client.get("/execution-parameters").json()
    assert set(parameters) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
    assert parameters["MaxConcurrentTransforms"] * parameters["MaxPayloadInMB"] <= 100
    assert parameters["BatchStrategy"] in ("MULTI_RECORD", "SINGLE_RECORD")
    assert batch_parameters(Limits(max_payload_bytes=1024))["MaxPayloadInMB"] >= 1


@pytest.mark.parametrize(
    "kind", ["application/jsonlines", "application/x-ndjson", "application/jsonl; charset=utf-8"]
)
def test_item_27_n_lines_in_n_lines_out_in_order(server: Any, kind: str) -> None:
    questions = ["reset the lamp", "descale the kettle", "연차 휴가 신청", "prune roses"] * 20
    response = server.post(b"\n".join(record(q) for q in questions) + b"\n", kind)
    assert response.status_code == 200
    assert response.headers["content-type"] == kind.partition(";")[0]
    found = [json.loads(line)["passages"][0]["doc_id"] for line in response.text.splitlines()]
    assert found == ["en/lamp.md", "en/kettle.md", "ko/휴가.md", "en/garden.md"] * 20


def test_item_28_no_final_newline_and_no_blank_lines_out(server: Any) -> None:
    body = b"\n\r\n" + record("lamp") + b"\r\n  \n\n" + record("kettle")
    text = server.post(body, LINES).text
    assert text.endswith("\n")
    assert len(text.split("\n")) == 3
    assert all(json.loads(line)["passages"] for line in text.splitlines())


def test_item_29_a_bad_record_is_one_error_line(server: Any) -> None:
    bad = [b"nope", record("lamp", top_k=0), record("lamp", stream=True), b'{"query": "\xff"}']
    body = b"\n".join([record("lamp"), *bad, record("kettle")])
    response = server.post(body, LINES, **{"x-request-id": "b-1"})
    assert response.status_code == 200
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert len(lines) == 6
    assert [line["error"]["type"] for line in lines[1:5]] == ["invalid_request"] * 4
    assert [line["error"]["request_id"] for line in lines[1:5]] == [
        f"b-1-{n}" for n in (2, 3, 4, 5)
    ]
    assert lines[0]["request_id"] == "b-1-1"
    assert lines[5]["passages"][0]["doc_id"] == "en/kettle.md"


def test_a_record_that_cannot_be_computed_is_one_error_line(launch: Any) -> None:
    def fail(texts: Any) -> None:
        if any("poison" in text for text in texts):
            raise RuntimeError("internal detail")

    questions = ["lamp", "kettle", "poison", "roses", "tyres"] * 4
    with launch(before=fail) as running:
        text = running.post(b"\n".join(record(q) for q in questions), LINES).text
    lines = [json.loads(line) for line in text.splitlines()]
    for question, line in zip(questions, lines, strict=True):
        if question == "poison":
            assert line["error"]["type"] == "model_failure"
            assert "detail" not in line["error"]["message"]
        else:
            assert line["passages"]


def test_item_30_chunked_requests_work(server: Any) -> None:
    def parts() -> Iterator[bytes]:
        body = record("lamp") + b"\n" + record("연차 휴가")
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    headers = {"content-type": LINES}
    response = server.client.post("/invocations", content=parts(), headers=headers)
    assert response.status_code == 200
    assert len(response.text.splitlines()) == 2
    assert b"content-length" not in response.request.headers.raw


def test_empty_and_too_many(launch: Any) -> None:
    with launch(limits=Limits(max_records=3)) as running:
        assert running.post(b"\n \n", LINES).status_code == 400
        assert running.post(b"\n".join([record("a")] * 3), LINES).status_code == 200
        assert running.post(b"\n".join([record("a")] * 4), LINES).status_code == 413


def test_lines_are_not_sent_as_something_else(server: Any) -> None:
    response = server.post(record("lamp"), LINES, accept="text/csv")
    assert response.status_code == 406
    mixed = server.post(record("lamp"), LINES, accept="application/x-ndjson")
    assert mixed.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize("own", [False, True])
def test_records_share_a_deadline_unless_each_has_its_own(launch: Any, own: bool) -> None:
    import time

    def slow(texts: Any) -> None:
        time.sleep(0.15)

    limits = Limits(record_concurrency=1, deadline_per_record=own)
    body = b"\n".join([record("lamp", deadline_ms=1000)] * 12)
    with launch(before=slow, limits=limits) as running:
        text = running.post(body, LINES).text
    lines = [json.loads(line) for line in text.splitlines()]
    late = [line for line in lines if "error" in line]
    assert len(lines) == 12
    assert {line["error"]["type"] for line in late} == (set() if own else {"deadline_exceeded"})


BATCH = Limits(deadline_per_record=True, max_records=None, max_lines_bytes=64 << 20)


def test_a_long_job_leaves_in_pieces_and_in_order(launch: Any) -> None:
    count = 25_000
    with launch(limits=BATCH) as running:
        body = b"\n".join([b"{}"] * count + [record("lamp")])
        response = running.post(body, LINES, **{"x-request-id": "j"})
    assert response.headers["transfer-encoding"] == "chunked"
    lines = [json.loads(line) for line in response.text.splitlines()]
    ids = [line["error"]["request_id"] for line in lines[:-1]]
    assert ids == [f"j-{n}" for n in range(1, count + 1)]
    assert lines[-1]["passages"][0]["doc_id"] == "en/lamp.md"


def test_one_record_is_no_longer_than_a_request(launch: Any) -> None:
    limits = Limits(deadline_per_record=True, max_lines_bytes=1 << 20, max_payload_bytes=2000)
    with launch(limits=limits) as running:
        body = b"\n".join([record("lamp"), record("x" * 3000), record("kettle")])
        good, long, last = map(json.loads, running.post(body, LINES).text.splitlines())
        assert running.post(b"x" * (2 << 20), LINES).status_code == 413
    assert long["error"]["type"] == "payload_too_large"
    assert good["passages"]
    assert last["passages"]


def test_records_of_a_job_wait_where_the_service_is_full(launch: Any) -> None:
    with launch(limits=BATCH, queue_max_items=1) as running:
        text = running.post(b"\n".join([record("lamp")] * 8), LINES).text
    assert [len(json.loads(line)["passages"]) for line in text.splitlines()] == [1] * 8


def test_a_reply_that_breaks_off_does_not_look_whole(launch: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block(texts: Any) -> None:
        entered.set()
        go_on.wait(60)

    with launch(limits=BATCH, before=block) as running:
        body = b"\n".join([b"{}"] * 2000 + [record("lamp")])
        headers = {"content-type": LINES}
        with running.client.stream(
            "POST", "/invocations", content=body, headers=headers
        ) as response:
            assert response.status_code == 200
            assert entered.wait(60)
            drained = asyncio.run_coroutine_threadsafe(running.service.drain(0.0), running.loop)
            with pytest.raises(httpx2.RemoteProtocolError):
                response.read()
        go_on.set()
        drained.result(30)
