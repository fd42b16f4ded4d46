"""Checklist, Invocations: the wire, its errors, and bodies that are not what they should be."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.service.replies import ErrorReply, InvocationReply
from rag.service.schemas import Limits

MIB = 1 << 20


def error_of(response: Any) -> Any:
    """The error, after a check that it has the one shape that errors have."""
    body = response.json()
    ErrorReply.model_validate(body)
    assert "\n" not in body["error"]["message"]
    return body["error"]


def test_a_question_alone_gives_an_answer_with_its_sources(server: Any, opened: Any) -> None:
    response = server.ask("How do I reset the lamp?", top_k=3)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    reply = response.json()
    InvocationReply.model_validate(reply)
    assert list(reply) == [
        "answer", "citations", "abstained", "passages", "index_version", "generator", "degraded",
        "timings_ms", "request_id",
    ]  # fmt: skip
    assert "ten seconds" in reply["answer"]
    assert reply["passages"][0]["doc_id"] == "en/lamp.md"
    assert [passage["rank"] for passage in reply["passages"]] == [1, 2, 3]
    first = reply["citations"][0]
    assert first["passages"] == [1]
    assert first["supported"] is True
    assert "ten seconds" in reply["answer"][first["start"] : first["end"]]
    assert reply["index_version"] == opened.bundle.manifest.version
    assert reply["generator"] == "extractive"
    assert reply["degraded"] == []
    times = reply["timings_ms"]
    assert list(times) == ["expand", "queue", "embed", "search", "rerank", "generate", "total"]
    assert times["rerank"] == 0
    assert all(times[stage] > 0 for stage in ("embed", "search", "generate"))
    assert sum(times.values()) - times["total"] <= times["total"]


def test_korean_is_answered_in_korean(server: Any) -> None:
    reply = server.ask("연차 휴가는 며칠인가요?").json()
    assert reply["passages"][0]["doc_id"] == "ko/휴가.md"
    assert "15일" in reply["answer"]
    assert "\\u" not in server.ask("연차 휴가는 며칠인가요?").text


def test_decomposed_korean_finds_the_same(server: Any) -> None:
    import unicodedata

    question = "비밀번호는 얼마나 자주 바꾸나요?"
    composed = server.ask(question, mode="retrieve").json()["passages"]
    decomposed = server.ask(unicodedata.normalize("NFD", question), mode="retrieve").json()
    assert decomposed["passages"] == composed


def test_retrieve_leaves_out_answer_and_citations(server: Any) -> None:
    reply = server.ask(mode="retrieve").json()
    InvocationReply.model_validate(reply)
    assert "answer" not in reply
    assert "citations" not in reply
    assert reply["generator"] is None
    assert reply["timings_ms"]["generate"] == 0


def test_passages_carry_the_rank_and_score_of_each_leg(server: Any) -> None:
    hybrid = server.ask("power button", mode="retrieve").json()["passages"][0]["scores"]
    assert hybrid["dense"]["rank"] >= 1
    assert hybrid["sparse"]["rank"] == 1
    assert hybrid["rerank"] is None
    dense = server.ask("power button", mode="retrieve", legs="dense").json()["passages"][0]
    assert dense["scores"]["sparse"] is None
    assert math.isclose(dense["score"], dense["scores"]["dense"]["score"], rel_tol=1e-6)
    sparse = server.ask("power button", mode="retrieve", legs="sparse").json()["passages"]
    assert [passage["scores"]["dense"] for passage in sparse] == [None] * len(sparse)


def test_top_k_filter_fusion_and_min_score_have_their_effect(server: Any) -> None:
    def found(**fields: Any) -> list[Any]:
        response = server.ask("how often", mode="retrieve", **fields)
        assert response.status_code == 200, response.text
        return list(response.json()["passages"])

    everything = found(top_k=6)
    assert found(top_k=2) == everything[:2]
    assert {p["doc_id"] for p in found(top_k=6, filter={"lang": {"$eq": "ko"}})} == {
        "ko/휴가.md", "ko/보안.md",
    }  # fmt: skip
    ranked = found(top_k=6, fusion={"method": "rrf", "dense_weight": 1.0})
    legs = [p["scores"]["dense"]["rank"] for p in ranked]
    assert legs == sorted(legs)
    floor = everything[1]["score"]
    assert found(top_k=6, min_score=floor) == [p for p in everything if p["score"] >= floor]
    assert found(top_k=6, min_score=1000.0) == []


def test_no_passages_is_an_abstention_not_a_failure(server: Any) -> None:
    reply = server.ask("연차 휴가는 며칠인가요?", min_score=1000.0).json()
    assert reply["passages"] == []
    assert reply["citations"] == []
    assert "없습니다" in reply["answer"]


def test_item_13_unknown_headers_are_ignored(server: Any) -> None:
    headers = {"x-amzn-sagemaker-target-variant": "a", "x-something": "b", "authorization": "c"}
    assert server.ask(headers=headers).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'],
)
def test_item_14_content_types_with_parameters(server: Any, kind: str) -> None:
    assert server.post(b'{"query": "lamp"}', kind).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=euc-kr", "x"],
)
def test_item_14_unknown_types_are_415(server: Any, kind: str) -> None:
    response = server.post(b'{"query": "lamp"}', kind)
    assert response.status_code == 415
    assert error_of(response)["type"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "accept",
    [
        None, "", "*/*", "application/*", "application/json", "application/json;q=0.1",
        "text/html, application/xhtml+xml, */*;q=0.8", "text/csv,application/json; charset=utf-8",
    ],
)  # fmt: skip
def test_item_15_accept_that_allows_json(server: Any, accept: str | None) -> None:
    headers = {} if accept is None else {"accept": accept}
    if accept is None:
        del server.client.headers["accept"]
    try:
        response = server.ask(headers=headers)
    finally:
        server.client.headers["accept"] = "*/*"
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("accept", ["text/csv", "application/json;q=0, text/html", "text/*", ";"])
def test_item_15_accept_that_does_not_is_406(server: Any, accept: str) -> None:
    response = server.ask(headers={"accept": accept})
    assert response.status_code == (200 if accept == ";" else 406)
    if response.status_code == 406:
        assert error_of(response)["type"] == "not_acceptable"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body is empty"),
        (b" \n", "body is empty"),
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"query": "a"} {"query": "b"}', "not valid JSON"),
        (b'{"query": "\xff"}', "not valid JSON"),
        (b'{"query": "\\ud800"}', "not valid JSON"),
        (b"{}", "query is missing"),
        (b'{"query": ""}', "query"),
        (b'{"query": "  \\n"}', "query is empty"),
        (b'{"query": 1}', "query"),
        (b'{"qurey": "a"}', "unknown field 'qurey'; did you mean 'query'?"),
        (b'{"query": "a", "topk": 1}', "did you mean 'top_k'?"),
        (b'{"query": "a", "top_k": 0}', "top_k"),
        (b'{"query": "a", "top_k": 101}', "top_k is 101; use at most 100"),
        (b'{"query": "a", "top_k": "5"}', "top_k"),
        (b'{"query": "a", "top_k": true}', "top_k"),
        (b'{"query": "a", "mode": "chat"}', "mode"),
        (b'{"query": "a", "legs": "both"}', "legs"),
        (b'{"query": "a", "filter": []}', "filter"),
        (b'{"query": "a", "filter": {"lang": {"$like": "k"}}}', "$like"),
        (b'{"query": "a", "fusion": {"method": "max"}}', "fusion.method"),
        (b'{"query": "a", "fusion": {"method": "weighted", "k": 3}}', "fusion.k"),
        (b'{"query": "a", "rerank": true}', "rerank"),
        (b'{"query": "a", "min_score": NaN}', "min_score"),
        (b'{"query": "a", "deadline_ms": 0}', "deadline_ms"),
        (b'{"query": "a", "deadline_ms": 60000}', "deadline_ms is 60000; use at most 55000"),
        (b'{"query": "a", "generation": {"temperatur": 1}}', "did you mean 'temperature'?"),
        (b'{"query": "a", "generation": {"max_tokens": 1000000}}', "generation.max_tokens"),
        (b'{"query": "a", "messages": [{"role": "system", "content": ""}]}', "messages.0.role"),
        (b'{"query": "a", "on_generator_failure": "retry"}', "on_generator_failure"),
        (b'{"query": "' + b"a" * 8001 + b'"}', "query is 8001 characters; use at most 8000"),
        (b'{"query": "a", "filter": ' + b'{"$not": ' * 5000 + b"{}" + b"}" * 5001, "not valid"),
    ],
)
def test_item_16_a_bad_body_is_400_in_one_line(server: Any, body: bytes, said: str) -> None:
    response = server.post(body, "application/json")
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] in ("invalid_request", "invalid_filter")
    assert said in error["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["mode", "top_k", "filter", "messages", "legs", "fusion", "rerank", "min_score", "stream",
     "generation", "deadline_ms", "on_generator_failure", "$and", "lang"]
)  # fmt: skip
REQUESTS = st.builds(
    lambda query, rest: json.dumps({"query": query} | rest).encode("utf-8", "surrogatepass"),
    st.text(max_size=30) | JSON,
    st.dictionaries(FIELDS, JSON, max_size=3),
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()) | REQUESTS,
       lines=st.booleans())  # fmt: skip
def test_no_body_is_answered_with_a_5xx(server: Any, body: bytes, lines: bool) -> None:
    kind = "application/jsonlines" if lines else "application/json"
    response = server.post(body, kind)
    assert response.status_code in (200, 400), (body, response.text)
    if response.status_code == 400:
        error_of(response)
    for line in response.text.splitlines() if lines and response.status_code == 200 else []:
        error = json.loads(line).get("error")
        assert error is None or error["type"] in ("invalid_request", "invalid_filter"), line


def test_item_17_a_large_body_is_taken_and_a_larger_one_is_413(server: Any) -> None:
    body = b'{"query": "lamp", "mode": "retrieve"}'
    full = body + b" " * (25 * MIB - len(body))
    assert server.post(full, "application/json").status_code == 200
    response = server.post(full + b" ", "application/json")
    assert response.status_code == 413
    assert error_of(response)["type"] == "payload_too_large"
    assert server.client.get("/ping").status_code == 200


def test_item_17_a_chunked_body_is_stopped_while_it_is_read(launch: Any) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 65536

    with launch(limits=Limits(max_payload_bytes=MIB)) as running:
        headers = {"content-type": "application/json"}
        response = running.client.post("/invocations", content=endless(), headers=headers)
        assert response.status_code == 413
        assert running.ask().status_code == 200


def test_a_body_that_does_not_arrive_is_504_at_the_deadline(launch: Any) -> None:
    with launch(limits=Limits(default_deadline_ms=200)) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as slow:
            head = "POST /invocations HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            slow.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
            answer = ""
            while not answer.endswith("}}"):
                piece = slow.recv(65536).decode()
                assert piece, answer
                answer += piece
        assert answer.startswith("HTTP/1.1 504 ")
        assert "deadline_exceeded" in answer


def test_item_18_custom_attributes_come_back_sanitised(server: Any) -> None:
    name = "x-amzn-sagemaker-custom-attributes"
    response = server.ask(headers={name: "tenant=a, request_id=call-7.b:1"})
    assert response.json()["request_id"] == "call-7.b:1"
    assert response.headers["x-request-id"] == "call-7.b:1"
    assert response.headers[name] == "tenant=a, request_id=call-7.b:1"
    response = server.ask(headers={name: b"request_id=<script>; \xed\x95\x9c\tx"})
    assert response.json()["request_id"] != "<script>"
    assert response.headers[name] == "request_id=<script>; x"
    assert name not in server.ask().headers
    assert len(server.ask(headers={name: "a" * 5000}).headers[name]) == 1024
    response = server.ask(headers={name: "api_key=sk-very-secret, tenant=a"})
    assert response.headers[name] == "tenant=a"


def test_the_request_id_is_the_callers_or_new(server: Any) -> None:
    assert server.ask(headers={"x-request-id": "abc"}).json()["request_id"] == "abc"
    assert server.ask(request_id="b-1").json()["request_id"] == "b-1"
    assert server.ask(request_id="b-1").headers["x-request-id"] == "b-1"
    both = server.ask(request_id="b-1", headers={"x-request-id": "abc"})
    assert both.json()["request_id"] == both.headers["x-request-id"] == "abc"
    assert error_of(server.ask(request_id="<b>"))["type"] == "invalid_request"
    made = {server.ask().json()["request_id"] for _ in range(2)}
    assert len(made) == 2
    failed = server.post(b"", "application/json", **{"x-request-id": "abc"})
    assert error_of(failed)["request_id"] == "abc"


def test_other_paths_and_methods_have_the_same_shape_of_error(server: Any) -> None:
    missing = server.client.get("/models")
    assert (missing.status_code, error_of(missing)["type"]) == (404, "not_found")
    wrong = server.client.get("/invocations")
    assert (wrong.status_code, error_of(wrong)["type"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_a_failing_encoder_is_500_without_its_reason_and_the_next_request_works(
    launch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([True])

    def fail(texts: object) -> None:
        if next(failures, False):
            raise RuntimeError("/secret/path exploded")

    with launch(before=fail) as running:
        response = running.ask(headers={"x-request-id": "r-9"})
        assert response.status_code == 500
        assert error_of(response)["type"] == "model_failure"
        assert "secret" not in response.text
        assert running.ask().status_code == 200
    logged = [r for r in caplog.records if getattr(r, "request_id", "") == "r-9"]
    assert any("exploded" in str(r.exc_info[1].__cause__) for r in logged if r.exc_info)


def test_an_unforeseen_error_is_500_internal_and_logged(
    launch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        name = "broken"

        async def stream(self, prompt: Any, *, deadline: float) -> Any:
            raise KeyError("/secret/path")
            yield

        async def aclose(self) -> None:
            pass

    with launch(generator=Broken()) as running:
        response = running.ask(headers={"x-request-id": "r-10"})
    assert response.status_code == 500
    assert error_of(response)["type"] == "internal"
    assert "secret" not in response.text
    assert any(getattr(r, "request_id", "") == "r-10" and r.exc_info for r in caplog.records)


def test_a_passed_deadline_is_504_and_is_not_computed(launch: Any) -> None:
    entered, go_on, seen = threading.Event(), threading.Event(), []

    def block(texts: Any) -> None:
        seen.extend(texts)
        entered.set()
        go_on.wait(60)

    with launch(before=block) as running, ThreadPoolExecutor(1) as pool:
        first = pool.submit(running.ask, "first", mode="retrieve")
        try:
            assert entered.wait(60)
            late = running.ask("second", mode="retrieve", deadline_ms=100)
            assert late.status_code == 504
            assert error_of(late)["type"] == "deadline_exceeded"
        finally:
            go_on.set()
        assert first.result().status_code == 200
        assert running.ask("third", mode="retrieve").status_code == 200
        assert seen == ["first", "third"]


@pytest.mark.parametrize("limit", [{"queue_max_items": 2}, {"max_in_flight": 3}])
def test_an_overloaded_service_says_so_at_once(launch: Any, limit: dict[str, int]) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block(texts: object) -> None:
        entered.set()
        go_on.wait(60)

    with launch(before=block, **limit) as running, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(running.ask, mode="retrieve")]
        try:
            assert entered.wait(60)
            asked += [pool.submit(running.ask, mode="retrieve") for _ in range(2)]
            while running.service.in_flight < 3:
                time.sleep(0.005)
            time.sleep(0.05)
            refused = running.ask(mode="retrieve")
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert error_of(refused)["type"] == "overloaded"
            assert running.client.get("/ping").status_code == 200
        finally:
            go_on.set()
        assert {future.result().status_code for future in asked} == {200}
        assert running.ask(mode="retrieve").status_code == 200


def test_concurrent_requests_get_their_own_passages(server: Any) -> None:
    questions = {
        "reset the lamp": "en/lamp.md",
        "descale the kettle": "en/kettle.md",
        "pressure of the tyres": "en/bicycle.txt",
        "prune roses": "en/garden.md",
        "연차 휴가 신청": "ko/휴가.md",
        "비밀번호 출입증": "ko/보안.md",
    }
    asked = list(questions) * 15
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda q: server.ask(q, mode="retrieve", top_k=1).json(), asked))
    assert [r["passages"][0]["doc_id"] for r in replies] == [questions[q] for q in asked]


def test_metrics_count_what_happened(launch: Any, opened: Any) -> None:
    with launch() as running:
        running.ask()
        running.ask(top_k=0)
        text = running.client.get("/metrics").text
    assert 'rag_requests_total{bundle="",status="200"} 1.0' in text
    assert 'rag_requests_total{bundle="",status="400"} 1.0' in text
    assert 'rag_stage_seconds_count{bundle="",stage="embed"} 1.0' in text
    assert 'rag_first_token_seconds_count{bundle=""} 1.0' in text
    assert 'rag_batch_items_count{stage="embed"} 1.0' in text
    assert 'rag_batch_items_count{stage="search"} 1.0' in text
    assert 'rag_queue_depth{stage="embed"} 0.0' in text
    assert "rag_in_flight_requests 0.0" in text
    assert "rag_ready 1.0" in text
    assert f'rag_index_info{{bundle="",version="{opened.bundle.manifest.version}"}} 1.0' in text


def test_the_documentation_has_the_schemas(server: Any) -> None:
    page = server.client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    for address in loaded:  # from this service, which may have no network
        assert address.startswith("/")
        assert len(server.client.get(address).content) > 1000
    made = server.client.get("/openapi.json").json()
    assert set(made["paths"]) == {
        "/", "/ping", "/invocations", "/execution-parameters", "/metrics",
        "/v1/chat/completions", "/v1/models",
    }  # fmt: skip
    post = made["paths"]["/invocations"]["post"]
    assert set(post["responses"]) == {
        "200", "400", "401", "403", "404", "406", "413", "415", "429", "500", "502", "503", "504",
    }  # fmt: skip
    schemas = made["components"]["schemas"]

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (v for k, v in value.items() if k == "$ref")
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    names = {reference.rpartition("/")[2] for reference in references(made)}
    assert names <= set(schemas)
    assert schemas["InvocationRequest"]["required"] == ["query"]
