"""Retries before the first token, and the circuit breaker, at the wire."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest
from raw_endpoint import FakeEndpoint, Reply, fake_endpoint, in_turn, reset_at_once, says, silence
from speakers import SPEAKERS, Speaker

from rag.errors import (
    GeneratorCircuitOpen,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Prompt
from rag.models.resilient_generator import ResilientGenerator
from rag.models.wire.breaker import Breaker
from rag.types import Message

PROMPT = Prompt("q", [], [Message("user", "질문")])
LATER_S = 0.2  # how long a circuit stays open where a test waits for that
STAYS_OPEN_S = 60.0


@pytest.fixture(params=["openai", "sagemaker-messages", "bedrock"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return SPEAKERS[request.param]


OPENAI = SPEAKERS["openai"]


def status(code: int, headers: str = "") -> Reply:
    return says(b"{}", status=f"{code} X", kind="application/json", headers=headers)


def fine(speaker: Speaker) -> Reply:
    return says(speaker.text("a"), speaker.text("b"), speaker.finish, kind=speaker.kind)


class Run:
    """One resilient generator on one endpoint; `states` are those that its breaker told."""

    def __init__(self, endpoint: FakeEndpoint, speaker: Speaker, **options: Any) -> None:
        self.endpoint = endpoint
        self.states: list[str] = []
        self.breaker = Breaker(
            "e",
            threshold=options.pop("threshold", 3),
            open_for_s=options.pop("open_for_s", LATER_S),
            observe=lambda name, state: self.states.append(state),
        )
        self.generator = ResilientGenerator(
            speaker.make(endpoint.url), self.breaker, wait_initial_s=0.01, **options
        )

    async def ask(self, within_s: float = 20.0, received: list[str] | None = None) -> str:
        received = [] if received is None else received
        stream = self.generator.stream(PROMPT, deadline=time.monotonic() + within_s)
        async for delta in stream:
            received.append(delta.text)
        return "".join(received)

    async def fails(self, **options: Any) -> type[GeneratorFailure]:
        with pytest.raises(GeneratorFailure) as raised:
            await self.ask(**options)
        return raised.type


def running(speaker: Speaker, reply: Reply, test: Any, **options: Any) -> None:
    async def run() -> None:
        async with fake_endpoint(reply) as endpoint:
            made = Run(endpoint, speaker, **options)
            await test(made)
            await made.generator.aclose()

    anyio.run(run)


@pytest.mark.parametrize("first", [status(503), status(500), status(429), reset_at_once])
def test_what_failed_before_the_first_token_is_asked_again(speaker: Speaker, first: Reply) -> None:
    async def test(run: Run) -> None:
        assert await run.ask() == "ab"
        assert len(run.endpoint.requests) == 3
        assert run.states == ["closed"]

    running(speaker, in_turn(first, first, fine(speaker)), test)


def test_no_more_attempts_than_allowed(speaker: Speaker) -> None:
    async def test(run: Run) -> None:
        assert await run.fails() is GeneratorUnavailable
        assert len(run.endpoint.requests) == 2

    running(speaker, status(503), test, attempts=2)


def test_nothing_is_asked_again_once_a_token_was_shown(speaker: Speaker) -> None:
    async def test(run: Run) -> None:
        received: list[str] = []
        assert await run.fails(received=received) is GeneratorUnavailable
        assert received == ["a"]
        assert len(run.endpoint.requests) == 1

    broken = says(speaker.text("a"), 0.02, kind=speaker.kind, end="reset")
    running(speaker, in_turn(broken, fine(speaker)), test)


@pytest.mark.parametrize("code", [400, 401, 404])
def test_refusals_are_not_repeated_and_open_nothing(speaker: Speaker, code: int) -> None:
    async def test(run: Run) -> None:
        for _ in range(3):
            assert await run.fails() is GeneratorFailure
        assert len(run.endpoint.requests) == 3
        assert run.states == ["closed"]

    running(speaker, status(code), test, threshold=2)


def test_the_endpoint_says_when_to_come_back() -> None:
    async def test(run: Run) -> None:
        began = time.monotonic()
        assert await run.ask() == "ab"
        assert time.monotonic() - began >= 0.3

    wait = status(429, "Retry-After: 0.3\r\n")
    running(OPENAI, in_turn(wait, fine(OPENAI)), test)


def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    async def test(run: Run) -> None:
        began = time.monotonic()
        assert await run.fails(within_s=5.0) is GeneratorThrottled
        assert time.monotonic() - began < 4
        assert len(run.endpoint.requests) == 1

    running(OPENAI, status(429, "Retry-After: 30\r\n"), test)


def test_throttling_does_not_open_the_circuit() -> None:
    async def test(run: Run) -> None:
        for _ in range(4):
            assert await run.fails() is GeneratorThrottled
        assert run.states == ["closed"]

    running(OPENAI, status(429), test, threshold=2, attempts=1)


def test_a_silence_before_the_first_token_is_asked_again(speaker: Speaker) -> None:
    async def test(run: Run) -> None:
        assert await run.ask() == "ab"
        assert len(run.endpoint.requests) == 2

    running(speaker, in_turn(silence, fine(speaker)), test, first_token_s=0.2)


def test_a_callers_short_deadline_is_not_held_against_the_endpoint() -> None:
    async def test(run: Run) -> None:
        for _ in range(3):
            assert await run.fails(within_s=0.1) is GeneratorTimeout
        assert run.states == ["closed"]

    running(OPENAI, silence, test, threshold=2)


def test_a_long_silence_is(speaker: Speaker) -> None:
    async def test(run: Run) -> None:
        for _ in range(2):
            assert await run.fails(within_s=0.2) is GeneratorTimeout
        assert run.states == ["closed", "open"]

    running(speaker, silence, test, threshold=2, silent_after_s=0.1)


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (status(503), GeneratorUnavailable),
        (says(b"<html>", kind="text/html"), GeneratorProtocolError),
        (says(0.01, kind="text/event-stream", end="drop"), GeneratorUnavailable),
    ],
)
def test_an_open_circuit_asks_nobody(reply: Reply, failure: type[GeneratorFailure]) -> None:
    async def test(run: Run) -> None:
        for _ in range(3):
            assert await run.fails() is failure
        asked = len(run.endpoint.requests)
        for _ in range(5):
            with pytest.raises(GeneratorCircuitOpen, match="left alone") as raised:
                await run.ask()
            assert raised.value.retry_after_s
        assert len(run.endpoint.requests) == asked == 3
        assert run.states == ["closed", "open"]

    running(OPENAI, reply, test, attempts=1, open_for_s=STAYS_OPEN_S)


def test_attempts_of_one_request_count_and_end_when_the_circuit_opens() -> None:
    async def test(run: Run) -> None:
        assert await run.fails() is GeneratorCircuitOpen
        assert len(run.endpoint.requests) == 2

    running(OPENAI, status(503), test, threshold=2, attempts=5, open_for_s=STAYS_OPEN_S)


def test_a_probe_closes_the_circuit_at_its_first_token() -> None:
    async def test(run: Run) -> None:
        assert await run.fails() is GeneratorUnavailable
        await asyncio.sleep(LATER_S + 0.05)
        stream: Any = run.generator.stream(PROMPT, deadline=time.monotonic() + 20)
        await anext(stream)
        assert run.states == ["closed", "open", "half_open", "closed"]
        await stream.aclose()

    slow = says(OPENAI.text("a"), 20.0)
    running(OPENAI, in_turn(status(503), slow), test, threshold=1, attempts=1)


def test_a_probe_that_fails_opens_it_again() -> None:
    async def test(run: Run) -> None:
        await run.fails()
        await asyncio.sleep(LATER_S + 0.05)
        assert await run.fails() is GeneratorUnavailable
        assert await run.fails() is GeneratorCircuitOpen
        assert run.states == ["closed", "open", "half_open", "open"]

    running(OPENAI, status(503), test, threshold=1, attempts=1)


def test_there_is_one_probe_at_a_time() -> None:
    async def test(run: Run) -> None:
        await run.fails()
        await asyncio.sleep(LATER_S + 0.05)
        probe = asyncio.create_task(run.ask())
        while len(run.endpoint.requests) < 2:
            await asyncio.sleep(0.005)
        for _ in range(3):
            assert await run.fails() is GeneratorCircuitOpen
        assert len(run.endpoint.requests) == 2
        assert await probe == "ab"
        assert await run.ask() == "ab"

    slow = says(0.3, OPENAI.text("a"), OPENAI.text("b"), OPENAI.finish)
    running(OPENAI, in_turn(status(503), slow), test, threshold=1, attempts=1)


def test_a_probe_whose_caller_leaves_says_nothing() -> None:
    async def test(run: Run) -> None:
        await run.fails()
        await asyncio.sleep(LATER_S + 0.05)
        probe = asyncio.create_task(run.ask())
        while len(run.endpoint.requests) < 2:
            await asyncio.sleep(0.005)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert run.states[-1] == "half_open"
        assert await run.ask() == "ab"
        assert run.states[-1] == "closed"

    replies = in_turn(status(503), silence, fine(OPENAI))
    running(OPENAI, replies, test, threshold=1, attempts=1)


def test_callers_who_leave_do_not_open_the_circuit() -> None:
    async def test(run: Run) -> None:
        for _ in range(4):
            stream: Any = run.generator.stream(PROMPT, deadline=time.monotonic() + 20)
            await anext(stream)
            await stream.aclose()
        assert run.states == ["closed"]

    running(OPENAI, says(OPENAI.text("a"), 20.0), test, threshold=2)


def test_a_success_in_between_starts_the_count_again() -> None:
    async def test(run: Run) -> None:
        for _ in range(2):
            await run.fails()
            assert await run.ask() == "ab"
        assert run.states == ["closed"]

    bad, good = status(503), fine(OPENAI)
    running(OPENAI, in_turn(bad, good, bad, good), test, threshold=2, attempts=1)


def test_waits_have_jitter() -> None:
    async def gap() -> float:
        async with fake_endpoint(in_turn(status(503), fine(OPENAI))) as endpoint:
            breaker = Breaker("e")
            made = ResilientGenerator(OPENAI.make(endpoint.url), breaker, wait_initial_s=0.2)
            waited: list[float] = []  # the server of the test sleeps too, 0.1 s at most
            sleep = asyncio.sleep

            async def listen(seconds: float, *rest: Any) -> Any:
                waited.append(seconds)
                return await sleep(seconds, *rest)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asyncio, "sleep", listen)
                async for _ in made.stream(PROMPT, deadline=time.monotonic() + 20):
                    pass
            await made.aclose()
            return max(waited)

    gaps = {anyio.run(gap) for _ in range(4)}
    assert len(gaps) == 4
    assert all(0.2 <= seconds <= 0.4 for seconds in gaps)
