"""Checklist 24 and 25: SIGTERM, and what the log does not say. A real process each."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def talking(spawn: Callable[..., Any], bundle_folder: Path, endpoint: Any) -> Callable[..., Any]:
    """Starts a service whose generator is the endpoint, with the behaviour named."""

    def start(behaviour: str, **environment: str) -> Any:
        process = spawn(
            RAG_BUNDLE=str(bundle_folder),
            RAG_GENERATOR="openai",
            RAG_GENERATOR_URL=endpoint.url,
            RAG_GENERATOR_MODEL=behaviour,
            RAG_GENERATOR_API_KEY="sk-very-secret",
            RAG_LOG_LEVEL="DEBUG",
            **environment,
        )
        process.until(200)
        return process

    return start


def test_item_24_requests_in_flight_finish_and_new_ones_are_refused(
    talking: Callable[..., Any], endpoint: Any
) -> None:
    process = talking("stepwise")
    with ThreadPoolExecutor(1) as pool:
        body = {"query": "reset the lamp"}
        asked = pool.submit(process.client.post, "/invocations", json=body)
        assert endpoint.entered.wait(60)
        process.process.send_signal(signal.SIGTERM)
        process.until(503)
        refused = process.client.post("/invocations", json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "not_ready"
        endpoint.go_on.set()
        assert asked.result().json()["answer"] == "Hold the power button [1]."
    assert process.process.wait(30) == 0


def test_item_24_a_hung_stream_is_told_and_does_not_hold_the_exit(
    talking: Callable[..., Any],
) -> None:
    process = talking("hang-in-the-middle", RAG_DRAIN_TIMEOUT_S="1")
    body = {"query": "reset the lamp", "stream": True}
    with process.client.stream("POST", "/invocations", json=body) as response:
        lines = response.iter_lines()
        while json.loads(next(lines))["type"] != "delta":
            pass
        process.process.send_signal(signal.SIGTERM)
        last = json.loads(list(lines)[-1])
    assert last["type"] == "error"
    assert last["error"]["type"] == "not_ready"
    assert process.process.wait(29) == 0


def test_item_24_a_reader_that_reads_nothing_does_not_hold_the_exit(
    talking: Callable[..., Any], endpoint: Any
) -> None:
    process = talking("flood", RAG_DRAIN_TIMEOUT_S="1")
    body = json.dumps({"query": "reset the lamp", "stream": True}).encode()
    head = f"POST /invocations HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", process.port)) as silent:
        silent.sendall(head.encode() + body)
        assert endpoint.entered.wait(60)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(29) == 0


def test_item_24_a_hung_request_is_told_and_does_not_hold_the_exit(
    talking: Callable[..., Any], endpoint: Any
) -> None:
    process = talking("hang", RAG_DRAIN_TIMEOUT_S="1")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(process.client.post, "/invocations", json={"query": "lamp"})
        assert endpoint.entered.wait(60)
        process.process.send_signal(signal.SIGTERM)
        assert asked.result().status_code == 503
    assert process.process.wait(29) == 0


def test_item_24_a_stop_while_loading_ends_the_process(
    spawn: Callable[..., Any], bundle_folder: Path
) -> None:
    process = spawn(RAG_BUNDLE=str(bundle_folder))
    process.until(503)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(29) == 0


def test_item_25_the_log_is_json_lines_without_secrets_or_questions(
    talking: Callable[..., Any],
) -> None:
    process = talking("500")
    question = "my private question about the lamp"
    for failure in ("degrade", "error"):
        process.client.post(
            "/invocations",
            json={"query": question, "on_generator_failure": failure},
            headers={"authorization": "Bearer client-secret", "x-request-id": "l-1"},
        )
    time.sleep(0.1)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(29) == 0
    lines = process.lines()
    assert any(line.get("request_id") == "l-1" for line in lines)
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    text = process.log.read_text(encoding="utf-8")
    for secret in ("sk-very-secret", "client-secret", "private question"):
        assert secret not in text
