"""What the endpoint's side of the wire can do wrong, and what each fault is called.

What it shares with other endpoints is in test_endpoints.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time

import anyio
import httpx2
import pytest
from raw_endpoint import (
    FakeEndpoint,
    Reply,
    close_at_once,
    fake_endpoint,
    not_http,
    reset_at_once,
    says,
    silence,
)

from rag.errors import (
    ConfigurationError,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Prompt
from rag.models.openai_generator import OpenAIGenerator
from rag.types import Message

PROMPT = Prompt("q", [], [Message("user", "질문")], max_tokens=7, temperature=0.25)
SECRET = "token-0123456789-secret"


def frame(text: str | None = None, finish: str | None = None, **delta: object) -> bytes:
    if text is not None:
        delta["content"] = text
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def data(body: object) -> bytes:
    return b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def collect(
    generator: OpenAIGenerator, *, within_s: float = 20.0, received: list[str] | None = None
) -> list[str]:
    """The deltas; fails the test if the outcome is not there soon after the deadline."""
    received = [] if received is None else received
    deadline = time.monotonic() + within_s
    try:
        async for delta in generator.stream(PROMPT, deadline=deadline):
            if delta.finish is None:
                received.append(delta.text)
    finally:
        assert time.monotonic() < deadline + 5, "it went on long after the deadline"
    return received


def outcome(reply: Reply, *, within_s: float = 20.0) -> list[str]:
    async def ask() -> list[str]:
        async with fake_endpoint(reply) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m", api_key=SECRET)
            try:
                return await collect(generator, within_s=within_s)
            finally:
                await generator.aclose()

    return anyio.run(ask)


@pytest.mark.parametrize(
    "reply",
    [
        says(frame("물은 "), frame("끓는다."), frame(finish="stop"), DONE),
        says(frame("", role="assistant"), frame("물은 끓는다.", finish="stop"), DONE),
        says(b": keep-alive\n\n", frame("물은 끓는다."), b": ping\n\n", frame(finish="length")),
        says(frame("물은 끓는다.", finish="stop"), data({"choices": [], "usage": {"x": 1}}), DONE),
        says(frame(reasoning_content="hmm"), frame("물은 끓는다."), DONE),
        says(frame("물은 끓는다.").replace(b"\n\n", b"\r\n\r\n"), DONE),
        says(*[bytes([b]) for b in frame("물은 끓는다.", finish="stop")], DONE),
        says(frame("물은 끓는다.", finish="stop"), end="eof"),
        says(frame("물은 끓는다.", finish="stop"), end="drop"),
        says(frame("물은 끓는다.", finish="stop"), 30.0),
        says(frame("물은 끓는다."), DONE, 30.0),
        says(
            json.dumps({"choices": [{"message": {"content": "물은 끓는다."}}]}).encode(),
            kind="application/json; charset=utf-8",
        ),
    ],
)
def test_what_counts_as_an_answer(reply: Reply) -> None:
    deltas = outcome(reply)
    assert "".join(deltas) == "물은 끓는다."
    assert all(deltas)


ERROR_503 = {"error": {"message": "engine dead", "code": 503}}
ERROR_400 = {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}
JSON = "application/json"


@pytest.mark.parametrize(
    ("reply", "failure", "message"),
    [
        (says(b"no", status="429 Slow", kind="text/plain"), GeneratorThrottled, "429"),
        (says(b"{}", status="500 Oops", kind=JSON), GeneratorUnavailable, "500.*no message"),
        (says(b"<html>", status="503 Oops", kind="text/html"), GeneratorUnavailable, "503"),
        (says(data(ERROR_503)), GeneratorUnavailable, "engine dead"),
        (says(frame("a"), data(ERROR_400)), GeneratorFailure, "400.*too long"),
        (says(data({"error": "queue", "error_type": "overloaded"})), GeneratorThrottled, "queue"),
        (says(b'{"error": "model x?"}', status="404 No", kind=JSON), GeneratorFailure, "model x"),
        (says(b'{"detail": "role"}', status="422 No", kind=JSON), GeneratorFailure, "role"),
        (says(b"moved", status="307 Away"), GeneratorProtocolError, "base URL"),
        (says(frame("a"), data(b"{not json")), GeneratorProtocolError, "not JSON"),
        (says(frame("a"), data(b"x" * 2**21)), GeneratorProtocolError, "too long an event"),
        (says(data([1])), GeneratorProtocolError, "not an object"),
        (says(data({"choices": [1]})), GeneratorProtocolError, "choice"),
        (says(data({"choices": [{"delta": {"content": 5}}]})), GeneratorProtocolError, "content"),
        (says(data({"something": "else"})), GeneratorProtocolError, "choices"),
        (says(data(b"[" * 100_000)), GeneratorProtocolError, "not JSON"),
        (says(b"<html>", kind="text/html"), GeneratorProtocolError, "text/html"),
        (says(b"{}", kind=JSON), GeneratorProtocolError, "choices"),
        (says(frame("half")), GeneratorProtocolError, "finish reason"),
        (says(frame("half"), end="eof"), GeneratorProtocolError, "finish reason"),
        (says(end="eof"), GeneratorProtocolError, "finish reason"),
        (says(frame("half"), end="drop"), GeneratorUnavailable, "closed the connection"),
        (says(frame("half"), 0.05, end="reset"), GeneratorUnavailable, "closed the connection"),
        (says(DONE), GeneratorFailure, "without any text"),
    ],
)
def test_each_fault_has_its_name(
    reply: Reply, failure: type[GeneratorFailure], message: str
) -> None:
    with pytest.raises(failure, match=message) as raised:
        outcome(reply)
    assert raised.type is failure
    assert "\n" not in str(raised.value)


def test_no_answer_at_all() -> None:
    with pytest.raises(GeneratorUnavailable, match="closed the connection"):
        outcome(reset_at_once)
    with pytest.raises(GeneratorUnavailable, match="closed the connection"):
        outcome(close_at_once)
    with pytest.raises(GeneratorProtocolError, match="HTTP"):
        outcome(not_http)


def test_a_refused_connection() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(GeneratorUnavailable, match=r"127\.0\.0\.1:\d+ refused"):
            anyio.run(collect, OpenAIGenerator(url, "m"))


DRIP = [part for _ in range(100) for part in (frame("x"), 0.1)]


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        (silence, 0),
        (says(30.0), 0),
        (says(frame("", role="assistant"), 30.0), 0),
        (says(frame("one"), 30.0), 1),
        (says(b": ping\n\n", *[p for _ in range(99) for p in (0.1, b": ping\n\n")]), 0),
        (says(b"slow", 30.0, status="500 Oops"), 0),
        (says(b'{"choices"', 30.0, kind=JSON), 0),
    ],
)
def test_silence_is_a_timeout_before_the_deadline(reply: Reply, count: int) -> None:
    received: list[str] = []

    async def ask() -> float:
        async with fake_endpoint(reply) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m")
            deadline = time.monotonic() + 0.7
            with pytest.raises(GeneratorTimeout):
                await collect(generator, within_s=0.7, received=received)
            left = deadline - time.monotonic()
            async with asyncio.timeout(5):
                await endpoint.gone.wait()  # the endpoint sees that nobody listens any more
            await generator.aclose()
            return left

    assert anyio.run(ask) > -5
    assert len(received) == count


def test_a_slow_drip_keeps_what_came_and_ends_at_the_deadline() -> None:
    async def ask() -> int:
        received: list[str] = []
        async with fake_endpoint(says(*DRIP)) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m")
            with pytest.raises(GeneratorTimeout):
                await collect(generator, within_s=1.0, received=received)
            await generator.aclose()
        return len(received)

    assert 2 <= anyio.run(ask) < 12


def test_a_deadline_in_the_past_asks_nobody() -> None:
    async def ask() -> int:
        async with fake_endpoint(says(frame("x"), DONE)) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m")
            with pytest.raises(GeneratorTimeout):
                await anext(aiter(generator.stream(PROMPT, deadline=time.monotonic() - 1)))
            await generator.aclose()
            return endpoint.connections

    assert anyio.run(ask) == 0


def test_closing_the_iterator_closes_the_request_at_once() -> None:
    async def ask() -> None:
        async with fake_endpoint(says(frame("one"), 30.0)) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m")
            stream = generator.stream(PROMPT, deadline=time.monotonic() + 60)
            async for _ in stream:
                break
            await stream.aclose()  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                await endpoint.gone.wait()
            await generator.aclose()

    anyio.run(ask)


def test_cancelling_the_task_closes_the_request_at_once() -> None:
    async def ask() -> None:
        async with fake_endpoint(says(frame("one"), 30.0)) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m")
            task = asyncio.create_task(collect(generator, within_s=60))
            while not endpoint.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                await endpoint.gone.wait()
            await generator.aclose()

    anyio.run(ask)


def test_the_request_and_the_reuse_of_its_connection() -> None:
    async def ask() -> FakeEndpoint:
        async with fake_endpoint(says(frame("a", finish="stop"), DONE)) as endpoint:
            generator = OpenAIGenerator(
                endpoint.url + "/v1/", "m", api_key=SECRET, headers={"X-A": "b"}, extra={"seed": 3}
            )
            for _ in range(5):
                assert await collect(generator) == ["a"]
            await generator.aclose()
            return endpoint

    endpoint = anyio.run(ask)
    assert endpoint.connections == 1
    line, body = endpoint.requests[-1]
    assert line.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"Authorization: Bearer {SECRET}\r\n" in line
    assert "X-A: b\r\n" in line
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "질문"}],
        "max_tokens": 7,
        "temperature": 0.25,
        "stream": True,
        "seed": 3,
    }


def test_an_answer_of_the_wrong_kind_is_not_left_open() -> None:
    async def ask() -> None:
        async with fake_endpoint(says(b"<html>", 30.0, kind="text/html")) as endpoint:
            generator = OpenAIGenerator(endpoint.url, "m")
            with pytest.raises(GeneratorProtocolError):
                await collect(generator)
            async with asyncio.timeout(5):
                await endpoint.gone.wait()
            await generator.aclose()

    anyio.run(ask)


LEAK = {"error": {"message": f"bad key {SECRET} or Bearer abcdef or sk-12345678", "code": 401}}


@pytest.mark.parametrize(
    "reply",
    [
        says(json.dumps(LEAK).encode(), status="401 No", kind=JSON),
        says(json.dumps(LEAK).encode(), kind=JSON),
        says(frame("a"), data(LEAK)),
    ],
)
def test_no_secret_is_repeated(reply: Reply) -> None:
    with pytest.raises(GeneratorFailure, match="401") as raised:
        outcome(reply)
    for secret in (SECRET, "abcdef", "12345678"):
        assert secret not in str(raised.value)


def test_a_long_message_is_shortened() -> None:
    with pytest.raises(GeneratorFailure) as raised:
        outcome(says(b"x" * 100_000, status="400 No", kind="text/plain"))
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://h:1", "/v1/chat/completions"),
        ("http://h:1/", "/v1/chat/completions"),
        ("https://h/proxy/v1", "/proxy/v1/chat/completions"),
        ("https://h/v1beta", "/v1beta/chat/completions"),
        ("http://h/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_base_urls(base: str, path: str) -> None:
    paths: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.path)
        return httpx2.Response(200, json={"choices": [{"message": {"content": "x"}}]})

    async def ask() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            generator = OpenAIGenerator(base, "m", client=client)
            await collect(generator)
            await generator.aclose()
            await collect(generator)  # a client from outside stays open

    anyio.run(ask)
    assert paths == [path, path]


@pytest.mark.parametrize("base", ["", "localhost:8000", "ftp://h", "http://", "http://[::"])
def test_a_base_url_that_is_none(base: str) -> None:
    with pytest.raises(ConfigurationError, match="base URL"):
        OpenAIGenerator(base, "m")
