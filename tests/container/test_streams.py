"""Checklist, Invocations 21 to 25: streams, callers that leave, SIGTERM, and the log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from sagemaker_local.hosting import GRACE_S

QUESTION = json.dumps({"query": "How do I reset the lamp?", "stream": True}).encode()


def frames(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        yield json.loads(line)


def first_words(found: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return next(frame for frame in found if frame["type"] == "delta")


def test_item_21_the_first_part_leaves_before_the_last_is_made(talking: Any) -> None:
    with talking("stepwise") as service, service.endpoint.stream(QUESTION) as response:
        found = frames(response)
        assert first_words(found)["text"]
        assert service.inside("touch", "/tmp/go-on") == 0
        assert [frame["type"] for frame in found][-1] == "done"


def test_item_22_a_failure_before_the_stream_is_a_status(talking: Any) -> None:
    with talking("500") as service:
        fields = {"stream": True, "on_generator_failure": "error"}
        assert service.ask(**fields).status == 502
        assert service.post(b'{"query": "", "stream": true}').status == 400


def test_item_22_a_failure_within_the_stream_is_a_frame(talking: Any) -> None:
    with talking("cut") as service, service.endpoint.stream(QUESTION) as response:
        assert response.status_code == 200
        last = list(frames(response))[-1]
        assert last["type"] == "error" or last["degraded"]


def test_item_23_a_caller_that_leaves_cancels_its_work(talking: Any) -> None:
    with talking("drip") as service:
        with service.endpoint.stream(QUESTION) as response:
            found = frames(response)
            first_words(found)
            assert not service.has("/tmp/left")
        service.until(lambda: service.has("/tmp/left"))
        assert service.endpoint.ping() == 200


def test_item_24_requests_in_flight_finish_after_sigterm(talking: Any) -> None:
    with talking("stepwise") as service, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(service.ask)
        service.until(lambda: service.has("/tmp/entered"))
        service.container.signal("TERM")
        service.until(lambda: service.endpoint.ping() == 503)
        assert service.inside("touch", "/tmp/go-on") == 0
        assert asked.result().json()["answer"] == "Hold the power button [1]."
        assert service.container.wait(GRACE_S) == 0


def test_item_24_hung_streams_do_not_hold_the_exit(talking: Any) -> None:
    with talking("drip") as service, contextlib.ExitStack() as open_streams:
        found = []
        for _ in range(5):
            response = open_streams.enter_context(service.endpoint.stream(QUESTION))
            found.append(frames(response))
            first_words(found[-1])
        # 137 would mean that it was killed, 30 seconds after SIGTERM.
        assert service.endpoint.stop() == 0
        assert [list(stream)[-1]["type"] for stream in found] == ["error"] * 5


def test_item_25_the_log_has_no_secrets_and_no_questions(talking: Any) -> None:
    secrets = {"RAG_GENERATOR_API_KEY": "sk-very-secret"}
    with talking("401", RAG_LOG_LEVEL="DEBUG", **secrets) as service:
        headers = {
            "authorization": "Bearer client-secret",
            "X-Amzn-SageMaker-Custom-Attributes": "request_id=l-1,api_key=attribute-secret",
        }
        for failure in ("degrade", "error"):
            service.ask("my private question", on_generator_failure=failure, headers=headers)
        assert service.endpoint.stop() == 0
        log = service.container.logs()
        assert all(isinstance(line, dict) for line in service.lines())
    for secret in ("sk-very-secret", "client-secret", "attribute-secret", "private question"):
        assert secret not in log
