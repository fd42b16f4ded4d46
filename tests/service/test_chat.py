"""Chat completions: the openai client and LangChain's ChatOpenAI talk to a real server."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx2
import pytest

from rag.service.access import Access

QUESTION = "How do I reset the lamp?"
TURNS = [
    {"role": "user", "content": "Tell me about the lamp."},
    {"role": "assistant", "content": "It stands on a desk."},
    {"role": "user", "content": "And how is it reset?"},
]


def client(server: Any, **options: Any) -> Any:
    openai = pytest.importorskip("openai", reason="install rag-containers[dev]")
    http = httpx2.Client(trust_env=False)
    return openai.OpenAI(
        base_url=f"{server.url}/v1", max_retries=0, http_client=http,
        **{"api_key": "none"} | options,
    )  # fmt: skip


def ask(server: Any, content: Any = QUESTION, **fields: Any) -> httpx2.Response:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    body = {"model": "m", "messages": messages, **fields}
    response: httpx2.Response = server.client.post("/v1/chat/completions", json=body)
    return response


def test_the_openai_client_gets_an_answer_with_its_passages(server: Any) -> None:
    made = client(server).chat.completions.create(
        model="any", messages=[{"role": "user", "content": QUESTION}], max_tokens=64,
        extra_body={"rag": {"top_k": 2, "filter": {"lang": {"$eq": "en"}}}},
    )  # fmt: skip
    plain = server.ask(QUESTION, top_k=2, filter={"lang": {"$eq": "en"}}).json()
    assert made.object == "chat.completion"
    assert made.model == "any"
    assert made.choices[0].message.role == "assistant"
    assert made.choices[0].message.content == plain["answer"]
    assert made.choices[0].finish_reason == "stop"
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert made.usage.completion_tokens > 3
    assert made.rag["passages"] == plain["passages"]
    assert made.rag["citations"] == plain["citations"]
    assert made.rag["index_version"] == plain["index_version"] == made.system_fingerprint
    assert [model.id for model in client(server).models.list()] == ["extractive"]


def test_the_openai_client_streams(launch: Any, endpoint: Any) -> None:
    with launch(generator=endpoint.generator("stepwise")) as server:
        stream = client(server).chat.completions.create(
            model="any", messages=[{"role": "user", "content": QUESTION}], stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = iter(stream)
        first = next(chunks)
        assert first.choices[0].delta.role == "assistant"
        assert first.rag["passages"]
        text = next(chunks).choices[0].delta.content
        assert text.strip() == "Hold"
        assert not endpoint.go_on.is_set()  # it came before the rest was made
        endpoint.go_on.set()
        *deltas, last, usage = list(chunks)
    text += "".join(chunk.choices[0].delta.content for chunk in deltas)
    assert text == "Hold the power button [1]."
    assert last.choices[0].finish_reason == "stop"
    assert last.rag["citations"][0]["passages"] == [1]
    assert usage.choices == []
    assert usage.usage.completion_tokens > 0
    assert len({chunk.id for chunk in (first, *deltas, last, usage)}) == 1


def test_langchain_talks_to_it(server: Any) -> None:
    openai = pytest.importorskip("langchain_openai", reason="install rag-containers[dev]")
    model = openai.ChatOpenAI(
        base_url=f"{server.url}/v1", api_key="none", model="any", max_retries=0,
        http_client=httpx2.Client(trust_env=False), stream_usage=True,
    )  # fmt: skip
    messages = [("system", "Be kind."), ("human", QUESTION)]
    whole = model.invoke(messages)
    pieces = list(model.stream(messages))
    assert "Hold the power button for ten seconds" in str(whole.content)
    assert "".join(str(piece.content) for piece in pieces) == whole.content
    assert whole.usage_metadata["output_tokens"] > 3
    assert sum((p.usage_metadata or {}).get("output_tokens", 0) for p in pieces) > 3


def test_history_goes_to_query_rewriting_where_there_is_a_chat_generator(
    launch: Any, endpoint: Any
) -> None:
    endpoint.expansion = "say How is the desk lamp reset?"
    with launch(generator=endpoint.generator("fine")) as server:
        reply = ask(server, messages=TURNS).json()
        assert reply["rag"]["queries"] == ["How is the desk lamp reset?"]
        assert reply["rag"]["passages"][0]["doc_id"] == "en/lamp.md"
        asked = endpoint.asked[-1]["messages"]
        assert [m["role"] for m in asked] == ["system", "user", "assistant", "user"]
        plain = ask(server, messages=TURNS, rag={"query_expansion": "none"}).json()
        assert plain["rag"]["queries"] == ["And how is it reset?"]


def test_without_one_the_last_message_is_searched(server: Any) -> None:
    reply = ask(server, messages=TURNS).json()
    assert reply["rag"]["queries"] == ["And how is it reset?"]
    assert reply["rag"]["degraded"] == []


def test_what_has_no_effect_is_told(server: Any) -> None:
    messages = [{"role": "system", "content": "Say moo."}, {"role": "user", "content": QUESTION}]
    reply = ask(server, messages=messages, top_p=0.5, seed=1, user="u", tools=[]).json()
    assert reply["rag"]["ignored"] == ["top_p", "seed", "messages.0"]
    assert "moo" not in reply["choices"][0]["message"]["content"]


def test_parts_of_text_are_one_message(server: Any) -> None:
    parts = [{"type": "text", "text": "How do I"}, {"type": "text", "text": "reset the lamp?"}]
    assert ask(server, parts).status_code == 200
    image = [{"type": "image_url", "image_url": {"url": "http://x"}}]
    assert ask(server, image).status_code == 400


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "last message is not the user's"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"content": "  "}, "query is empty"),
        ({"n": 2}, "n:"),
        ({"tools": [{"type": "function"}]}, "'tools' is not served here"),
        ({"logprobs": True}, "'logprobs' is not served here"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_tokens": 99999}, "max_tokens is 99999"),
        ({"temperature": 3}, "temperature"),
        ({"rag": {"topk": 3}}, "rag.topk"),
        ({"rag": {"top_k": 999}}, "top_k is 999"),
        ({"rag": {"template": "secret"}}, "template 'secret'"),
    ],
)
def test_bad_requests_are_told_in_openais_shape(server: Any, fields: Any, said: str) -> None:
    reply = ask(server, **fields)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"].startswith("invalid_")
    assert error["param"] is None


@pytest.mark.parametrize(
    ("behaviour", "status"), [("500", 502), ("429", 502), ("garbage", 502), ("hang", 504)]
)
def test_a_generator_that_fails_is_an_error(
    launch: Any, endpoint: Any, behaviour: str, status: int
) -> None:
    with launch(generator=endpoint.generator(behaviour)) as server:
        options = {"rag": {"deadline_ms": 2000}}
        reply = ask(server, **options)
        assert reply.status_code == status
        assert reply.json()["error"]["type"] == "server_error"
        streamed = ask(server, stream=True, **options)
        if behaviour != "garbage":
            assert streamed.status_code == status
            return
        events = [line[6:] for line in streamed.text.splitlines() if line]
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["error"]["code"] == "generator_protocol_error"
        openai = pytest.importorskip("openai")
        chunks = client(server).chat.completions.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        with pytest.raises(openai.APIError):
            list(chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_work_at_the_endpoint(
    launch: Any, endpoint: Any, stream: bool
) -> None:
    with launch(generator=endpoint.generator("hang")) as server:
        body = {"messages": [{"role": "user", "content": QUESTION}], "stream": stream}
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(data)}\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(head.encode() + b"\r\n" + data)
            assert endpoint.entered.wait(60)
        assert endpoint.left.wait(60)
        while server.service.in_flight:
            time.sleep(0.005)
        assert (
            'rag_requests_total{bundle="",status="499"} 1.0' in server.client.get("/metrics").text
        )


def test_keys_and_their_filters_hold_here_too(launch: Any) -> None:
    openai = pytest.importorskip("openai")
    entry = {"name": "ko", "key": "sk-korean-only-1234567890", "filter": {"lang": {"$eq": "ko"}}}
    with launch(access=Access(json.dumps({"keys": [entry]}))) as server:
        messages = [{"role": "user", "content": QUESTION}]
        with pytest.raises(openai.AuthenticationError):
            client(server).chat.completions.create(model="m", messages=messages)
        made = client(server, api_key="sk-korean-only-1234567890").chat.completions.create(
            model="m", messages=messages
        )
        assert made.rag["passages"]
        assert {p["doc_id"].split("/")[0] for p in made.rag["passages"]} == {"ko"}
