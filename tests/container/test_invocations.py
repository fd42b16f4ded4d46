"""Checklist, Invocations 12 to 20: what is accepted, refused, and answered without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest

MIB = 1 << 20
CUSTOM = "X-Amzn-SageMaker-Custom-Attributes"


def test_item_12_the_platforms_host_header_is_accepted(served: Any) -> None:
    # Every request of these tests has it.
    assert served.ask(headers={"host": "model.aws.local:8080"}).status == 200


def test_item_13_unknown_headers_are_ignored(served: Any) -> None:
    headers = {
        f"X-Amzn-SageMaker-{name}": "x" for name in ("Inference-Id", "Target-Variant", "New")
    }
    assert served.ask(headers=headers | {"x-forwarded-for": "1.2.3.4"}).status == 200


def test_item_14_content_types(served: Any) -> None:
    assert served.ask(headers={"content-type": "application/json; charset=utf-8"}).status == 200
    refused = served.post(b"<query/>", "application/xml")
    assert refused.status == 415
    assert refused.json()["error"]["message"]


@pytest.mark.parametrize("accept", [None, "*/*", "text/html, application/json;q=0.8"])
def test_item_15_accept_missing_any_or_a_list(served: Any, accept: str | None) -> None:
    reply = served.ask(headers={} if accept is None else {"accept": accept})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")


def test_item_15_accept_of_something_else_is_406(served: Any) -> None:
    assert served.ask(headers={"accept": "image/png"}).status == 406


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"query": 7}', b'{"query": "x", "no": 1}'])
def test_item_16_a_wrong_body_is_400_in_json(served: Any, body: bytes) -> None:
    reply = served.post(body)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request"


def test_item_17_25_mib_are_accepted_and_more_is_413(served: Any) -> None:
    body = json.dumps({"query": "lamp", "mode": "retrieve"}).encode()
    assert served.post(body.ljust(25 * MIB)).status == 200
    refused = served.post(body.ljust(25 * MIB + 1))
    assert refused.status == 413
    assert served.endpoint.ping() == 200


def test_item_18_custom_attributes_are_echoed_only_sanitised(served: Any) -> None:
    reply = served.ask(headers={CUSTOM: "request_id=abc-1,note=a\tb,api_key=top-secret"})
    assert reply.status == 200
    echoed = reply.headers[CUSTOM.lower()]
    assert echoed.startswith("request_id=abc-1,note=ab")
    assert echoed.isprintable()
    assert "top-secret" not in echoed
    assert reply.json()["request_id"] == "abc-1"


def test_item_19_a_hung_generator_gets_a_reply_before_the_platform_gives_up(talking: Any) -> None:
    with talking("hang", RAG_DEFAULT_DEADLINE_MS="2000") as service:
        reply = service.ask()
        assert reply.status == 200
        assert reply.json()["answer"] is None
        assert reply.json()["degraded"][0].startswith("generator: ")
        assert service.ask(on_generator_failure="error").status == 504


def test_item_20_without_a_network_retrieval_works(serve: Any) -> None:
    with serve(isolated=True) as service:
        reply = service.ask("연차 휴가", mode="retrieve", top_k=1)
        assert reply.json()["passages"][0]["doc_id"] == "ko/휴가.md"
        assert service.ask().json()["answer"]


def test_item_20_without_a_network_generation_fails_typed(serve: Any) -> None:
    remote = {
        "RAG_GENERATOR": "openai",
        "RAG_GENERATOR_URL": "http://generator.example/v1",
        "RAG_GENERATOR_MODEL": "m",
    }
    with serve(isolated=True, **remote) as service:
        # Five seconds, where the caller would have waited fifty.
        reply = service.endpoint.send(
            "POST", "/invocations", b'{"query": "lamp"}', {"content-type": "application/json"},
            timeout_s=5,
        )  # fmt: skip
        assert reply.status == 200
        assert reply.json()["answer"] is None
        assert reply.json()["passages"]
        assert service.ask(on_generator_failure="error").status == 502
