"""Requests become queries; what they hold beyond the service's limits is refused."""

from __future__ import annotations

import json
import unicodedata

import pytest

from rag.errors import InvalidRequest
from rag.service.replies import dumps, passage_json, timings_json
from rag.service.schemas import InvocationRequest, Limits, parse_request
from rag.types import Chunk, LegScore, Message, Mode, Passage, Query

LIMITS = Limits()


def parse(**fields: object) -> InvocationRequest:
    return parse_request(json.dumps(fields).encode(), LIMITS)


def test_only_the_query_is_required() -> None:
    request = parse(query="a")
    assert request.to_query() == Query("a", top_k=5, where=None, legs=Mode.HYBRID, fusion=None)
    assert (request.mode, request.stream, request.on_generator_failure) == (
        "answer", False, "degrade",
    )  # fmt: skip
    assert (request.generation.max_tokens, request.generation.temperature) == (512, 0.0)
    assert request.deadline_ms is None


def test_every_field_of_the_wire_is_known() -> None:
    request = parse(
        query="a", mode="retrieve", top_k=7, filter={"lang": {"$eq": "ko"}},
        messages=[{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
        fusion={"method": "rrf", "k": 10}, query_expansion="multi", rerank=False, min_score=0.5,
        stream=True, legs="dense",
        generation={"max_tokens": 5, "temperature": 1}, deadline_ms=5, on_generator_failure="error",
    )  # fmt: skip
    assert request.to_query() == Query(
        "a", 7, {"lang": {"$eq": "ko"}}, Mode.DENSE, {"method": "rrf", "k": 10.0}
    )
    assert request.history() == [Message("user", "b"), Message("assistant", "c")]


def test_text_is_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "휴가")
    request = parse(query=decomposed, messages=[{"role": "user", "content": decomposed}])
    assert request.to_query().text == "휴가"
    assert request.history() == [Message("user", "휴가")]


def test_only_what_was_said_of_fusion_is_passed_on() -> None:
    assert parse(query="a", fusion={"method": "weighted"}).to_query().fusion == {
        "method": "weighted"
    }


def test_a_byte_order_mark_is_not_json() -> None:
    assert parse_request(b'\xef\xbb\xbf{"query": "a"}', LIMITS).query == "a"


@pytest.mark.parametrize(
    ("limits", "fields", "said"),
    [
        (Limits(max_query_chars=3), {"query": "abcd"}, "query is 4 characters; use at most 3"),
        (
            Limits(max_query_chars=3),
            {"query": "abc", "messages": [{"role": "user", "content": "abcd"}]},
            "messages.0.content is 4 characters; use at most 3",
        ),
        (Limits(max_top_k=3), {"query": "a", "top_k": 4}, "top_k is 4; use at most 3"),
        (
            Limits(max_generation_tokens=3),
            {"query": "a", "generation": {"max_tokens": 4}},
            "generation.max_tokens is 4; use at most 3",
        ),
        (
            Limits(max_deadline_ms=3),
            {"query": "a", "deadline_ms": 4},
            "deadline_ms is 4; use at most 3",
        ),
        (LIMITS, {"query": "a", "messages": [{"role": "user", "content": ""}] * 65}, "messages"),
    ],
)
def test_limits(limits: Limits, fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said.replace(".", r"\.")):
        parse_request(json.dumps(fields).encode(), limits)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": "a", "query_expansions": "none"}, "did you mean 'query_expansion'?"),
        ({"querry": "a"}, "unknown field 'querry'; did you mean 'query'? (and 1 more)"),
        ({"query": "a", "xyz": 1}, "unknown field 'xyz'; known are query, mode,"),
        (
            {"query": "a", "messages": [{"role": "user", "content": "b", "nmae": 1}]},
            "unknown field 'messages.0.nmae'; known are role, content",
        ),
        ({"query": "a", "fusion": {"methd": "rrf"}}, "did you mean 'method'?"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(**fields)
    assert said in str(raised.value)


def test_a_reply_never_holds_nan() -> None:
    chunk = Chunk("d", "u", "t", "글", 0, 1, metadata={"tags": ["a"], "n": 1.5})
    passage = Passage(1, "id", chunk, float("nan"), dense=LegScore(2, float("inf")))
    reply = json.loads(dumps(passage_json(passage)), parse_constant=lambda name: pytest.fail(name))
    assert reply["score"] is None
    assert reply["scores"] == {"dense": {"rank": 2, "score": None}, "sparse": None, "rerank": None}
    assert reply["metadata"] == {"tags": ["a"], "n": 1.5}


def test_timings_have_every_stage() -> None:
    assert timings_json({"embed": 1.23456}) == {
        "expand": 0.0, "queue": 0.0, "embed": 1.235, "search": 0.0, "rerank": 0.0,
        "generate": 0.0, "total": 0.0,
    }  # fmt: skip
