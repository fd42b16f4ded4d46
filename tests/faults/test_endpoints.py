"""Every fault of an endpoint has one outcome, by name and before the deadline, whichever
protocol the generator speaks.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from event_stream import KIND, exception
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
from speakers import SPEAKERS, Speaker

from rag.errors import (
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Finish, Generator, Prompt
from rag.types import Message

PROMPT = Prompt(
    "q", [], [Message("system", "규칙"), Message("user", "질문")], max_tokens=7, temperature=0.25
)
AWS = [name for name in SPEAKERS if name != "openai"]


@pytest.fixture(params=list(SPEAKERS))
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return SPEAKERS[request.param]


async def ask(
    make: Callable[[str], Generator],
    reply: Reply,
    *,
    within_s: float = 20.0,
    received: list[str] | None = None,
    wait_gone: bool = False,
) -> tuple[str, Finish | None, FakeEndpoint]:
    """(text, how it ended, the endpoint); fails if the outcome comes after the deadline."""
    received = [] if received is None else received
    finish = None
    async with fake_endpoint(reply) as endpoint:
        generator = make(endpoint.url)
        deadline = time.monotonic() + within_s
        try:
            async for delta in generator.stream(PROMPT, deadline=deadline):
                received.append(delta.text)
                finish = delta.finish
        finally:
            assert time.monotonic() < deadline + 5, "it went on long after the deadline"
            if wait_gone:
                async with asyncio.timeout(5):
                    await endpoint.gone.wait()
            await generator.aclose()
    return "".join(received), finish, endpoint


def outcome(speaker: Speaker, reply: Reply, **options: Any) -> str:
    async def run() -> str:
        return (await ask(speaker.make, reply, **options))[0]

    return anyio.run(run)


def stream(speaker: Speaker, *parts: bytes | float, **options: Any) -> Reply:
    return says(*parts, **{"kind": speaker.kind} | options)


def test_an_answer_in_pieces(speaker: Speaker) -> None:
    parts = [speaker.text("물은 "), speaker.text("끓는다."), speaker.finish]
    text, finish, _ = anyio.run(ask, speaker.make, stream(speaker, *parts))
    assert text == "물은 끓는다."
    assert finish is not None
    assert finish.reason == "length"
    assert finish.completion_tokens == 3


def test_however_the_bytes_are_cut(speaker: Speaker) -> None:
    every = speaker.text("물은 ") + speaker.text("끓는다.") + speaker.finish
    assert outcome(speaker, stream(speaker, *[bytes([b]) for b in every])) == "물은 끓는다."


def test_an_answer_at_once(speaker: Speaker) -> None:
    assert speaker.make_whole is not None
    reply = says(speaker.whole, kind="application/json")
    text, finish, _ = anyio.run(ask, speaker.make_whole, reply)
    assert text == "물은 끓는다."
    assert finish is not None
    assert finish.reason == "length"
    assert finish.completion_tokens == 3


def test_a_refused_connection(speaker: Speaker) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        generator = speaker.make(f"http://127.0.0.1:{held.getsockname()[1]}")

        async def run() -> None:
            async for _ in generator.stream(PROMPT, deadline=time.monotonic() + 20):
                pass

        with pytest.raises(GeneratorUnavailable, match=r"127\.0\.0\.1:\d+ refused"):
            anyio.run(run)


@pytest.mark.parametrize("reply", [reset_at_once, close_at_once])
def test_a_connection_that_ends_before_the_reply(speaker: Speaker, reply: Reply) -> None:
    with pytest.raises(GeneratorUnavailable, match="closed the connection"):
        outcome(speaker, reply)


def test_what_is_not_http(speaker: Speaker) -> None:
    with pytest.raises(GeneratorProtocolError, match="HTTP"):
        outcome(speaker, not_http)


@pytest.mark.parametrize("end", ["drop", "reset"])
def test_a_connection_that_ends_in_mid_stream(speaker: Speaker, end: str) -> None:
    received: list[str] = []
    reply = stream(speaker, speaker.text("half"), 0.05, end=end)
    with pytest.raises(GeneratorUnavailable, match="closed the connection"):
        outcome(speaker, reply, received=received)
    assert received == ["half"]


@pytest.mark.parametrize("end", ["chunked", "eof"])
def test_a_stream_without_an_end(speaker: Speaker, end: str) -> None:
    with pytest.raises(GeneratorProtocolError, match="cut short"):
        outcome(speaker, stream(speaker, speaker.text("half"), end=end))


def test_too_many_requests_and_when_to_come_back(speaker: Speaker) -> None:
    slow = says(b"{}", status="429 Slow", kind="application/json", headers="Retry-After: 7\r\n")
    with pytest.raises(GeneratorThrottled, match="429") as raised:
        outcome(speaker, slow)
    assert raised.value.retry_after_s == 7.0


@pytest.mark.parametrize("status", ["500 Oops", "502 Oops", "503 Oops", "504 Oops"])
def test_server_errors(speaker: Speaker, status: str) -> None:
    with pytest.raises(GeneratorUnavailable, match=status[:3]):
        outcome(speaker, says(b"<html>", status=status, kind="text/html"))


@pytest.mark.parametrize("status", ["400 No", "401 No", "403 No", "404 No"])
def test_refusals_are_not_blamed_on_the_endpoint(speaker: Speaker, status: str) -> None:
    with pytest.raises(GeneratorFailure, match="no such thing") as raised:
        outcome(speaker, says(b'{"message": "no such thing"}', status=status, kind="text/plain"))
    assert raised.type is GeneratorFailure


def test_malformed_frames(speaker: Speaker) -> None:
    received: list[str] = []
    reply = stream(speaker, speaker.text("a"), speaker.garbage, speaker.finish)
    with pytest.raises(GeneratorProtocolError):
        outcome(speaker, reply, received=received)
    assert received == ["a"]


def test_a_content_type_that_is_none(speaker: Speaker) -> None:
    with pytest.raises(GeneratorProtocolError, match="text/html"):
        outcome(speaker, says(b"<html>", 30.0, kind="text/html"), wait_gone=True)


def test_an_answer_without_text(speaker: Speaker) -> None:
    with pytest.raises(GeneratorFailure, match="without any text"):
        outcome(speaker, stream(speaker, speaker.finish))


HANGS: dict[str, Callable[[Speaker], tuple[Reply, int]]] = {
    "before the head": lambda s: (silence, 0),
    "before the first token": lambda s: (stream(s, 30.0), 0),
    "in mid-stream": lambda s: (stream(s, s.text("one"), 30.0), 1),
    "within a frame": lambda s: (stream(s, s.text("one"), s.text("two")[:9], 30.0), 1),
    "within an error": lambda s: (says(b"slow", 30.0, status="500 Oops"), 0),
}


@pytest.mark.parametrize("hang", list(HANGS))
def test_a_hang_ends_at_the_deadline_and_the_endpoint_sees_it(speaker: Speaker, hang: str) -> None:
    reply, count = HANGS[hang](speaker)
    received: list[str] = []
    with pytest.raises(GeneratorTimeout):
        outcome(speaker, reply, within_s=0.4, received=received, wait_gone=True)
    assert len(received) == count


def test_a_slow_drip_keeps_what_came(speaker: Speaker) -> None:
    received: list[str] = []
    drip = [part for _ in range(100) for part in (speaker.text("x"), 0.05)]
    with pytest.raises(GeneratorTimeout):
        outcome(speaker, stream(speaker, *drip), within_s=0.6, received=received, wait_gone=True)
    assert 2 <= len(received) < 13


def test_closing_the_iterator_closes_the_request(speaker: Speaker) -> None:
    async def run() -> None:
        async with fake_endpoint(stream(speaker, speaker.text("one"), 30.0)) as endpoint:
            generator = speaker.make(endpoint.url)
            answer: Any = generator.stream(PROMPT, deadline=time.monotonic() + 60)
            assert (await anext(answer)).text == "one"
            await answer.aclose()
            async with asyncio.timeout(5):
                await endpoint.gone.wait()
            await generator.aclose()

    anyio.run(run)


def test_connections_are_reused(speaker: Speaker) -> None:
    async def run() -> int:
        async with fake_endpoint(stream(speaker, speaker.text("a"), speaker.finish)) as endpoint:
            generator = speaker.make(endpoint.url)
            for _ in range(3):
                async for _ in generator.stream(PROMPT, deadline=time.monotonic() + 20):
                    pass
            await generator.aclose()
            return endpoint.connections

    assert anyio.run(run) == 1


def test_callers_who_break_off_leave_no_connection_behind(speaker: Speaker) -> None:
    callers, steps = 8, 40

    async def run() -> None:
        async with fake_endpoint(stream(speaker, speaker.text("a"), 0.002, speaker.finish)) as end:
            generator = speaker.make(end.url)

            async def call() -> None:
                async for _ in generator.stream(PROMPT, deadline=time.monotonic() + 60):
                    pass

            async def caller() -> None:
                await call()
                for turns in range(steps):  # broken off after so many turns of the event loop
                    task = asyncio.create_task(call())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

            await asyncio.gather(*(caller() for _ in range(callers)))
            async with asyncio.timeout(20):
                while end.open > callers:
                    await asyncio.sleep(0.01)
            await generator.aclose()
            async with asyncio.timeout(20):
                while end.open:
                    await asyncio.sleep(0.01)

    anyio.run(run)


THROTTLED = {"message": "Too many tokens"}
MODEL_ERROR = b'{"Message": "m", "OriginalStatusCode": %d, "OriginalMessage": "cuda"}'
EXCEPTIONS: list[tuple[str, dict[str, object], type[GeneratorFailure]]] = [
    ("throttlingException", THROTTLED, GeneratorThrottled),
    ("serviceUnavailableException", {"message": "later"}, GeneratorUnavailable),
    ("internalServerException", {"message": "oops"}, GeneratorUnavailable),
    ("modelStreamErrorException", {"message": "broken"}, GeneratorUnavailable),
    ("validationException", {"message": "too long"}, GeneratorFailure),
    ("ModelStreamError", {"Message": "StreamBroken"}, GeneratorUnavailable),
    ("InternalStreamFailure", {"Message": "oops"}, GeneratorUnavailable),
]


@pytest.mark.parametrize("name", AWS)
@pytest.mark.parametrize(("kind", "said", "failure"), EXCEPTIONS)
def test_exceptions_within_an_aws_stream(
    name: str, kind: str, said: dict[str, object], failure: type[GeneratorFailure]
) -> None:
    speaker, received = SPEAKERS[name], []
    reply = says(speaker.text("a"), exception(kind, said), kind=KIND)
    with pytest.raises(failure, match=str(next(iter(said.values())))) as raised:
        outcome(speaker, reply, received=received)
    assert raised.type is failure
    assert received == ["a"]


@pytest.mark.parametrize("name", AWS)
@pytest.mark.parametrize(
    ("status", "header", "body", "failure"),
    [
        ("400 No", "ThrottlingException:http://x/", b"{}", GeneratorThrottled),
        ("429 No", "ModelNotReadyException", b"{}", GeneratorThrottled),
        ("424 No", "ModelErrorException", b"{}", GeneratorUnavailable),
        ("424 No", "ModelError", MODEL_ERROR % 500, GeneratorUnavailable),
        ("424 No", "ModelError", MODEL_ERROR % 429, GeneratorThrottled),
        ("424 No", "ModelError", MODEL_ERROR % 400, GeneratorFailure),
        ("408 No", "ModelTimeoutException", b"{}", GeneratorUnavailable),
        ("403 No", "AccessDeniedException", b"{}", GeneratorFailure),
        ("400 No", "", b'{"__type": "com.amazon#ThrottlingException"}', GeneratorThrottled),
    ],
)
def test_aws_errors_by_their_type(
    name: str, status: str, header: str, body: bytes, failure: type[GeneratorFailure]
) -> None:
    kind = f"x-amzn-errortype: {header}\r\n" if header else ""
    with pytest.raises(failure) as raised:
        outcome(SPEAKERS[name], says(body, status=status, headers=kind))
    assert raised.type is failure


@pytest.mark.parametrize("name", AWS)
@pytest.mark.parametrize("place", [3, 9, 20, -2])
def test_a_flipped_bit_in_an_aws_stream(name: str, place: int) -> None:
    speaker = SPEAKERS[name]
    frame = bytearray(speaker.text("abc"))
    frame[place] ^= 0x10
    with pytest.raises(GeneratorProtocolError, match=r"malformed event stream|cut short"):
        outcome(speaker, says(bytes(frame), speaker.finish[:40], kind=KIND))


@pytest.mark.parametrize("name", AWS)
def test_without_credentials_nobody_is_asked(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(GeneratorFailure, match="no AWS credentials"):
        outcome(SPEAKERS[name], silence)
