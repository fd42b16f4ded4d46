"""Retries and a circuit breaker around any generator that asks an endpoint.

Retries are tenacity's: the most used library for them, kept up, asynchronous, and with stop and
wait as plain functions, which lets both know the request's deadline. (stamina, built on it, has
no say in how long it waits but the exception's, and counts in a process-wide metrics registry.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from rag.errors import (
    GeneratorCircuitOpen,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Delta, Generator, Prompt
from rag.models.wire.breaker import Breaker

WAIT_INITIAL_S = 0.1
WAIT_MAX_S = 4.0
LEAST_S = 0.1
"""Another attempt is not begun with less time than this."""
SILENT_AFTER_S = 5.0
"""A timeout is held against the endpoint only if it had said nothing for so long: a caller's short
deadline says nothing of the endpoint."""


class ResilientGenerator:
    """`generator`, asked up to `attempts` times and not at all while `breaker` is open.

    Only an attempt of which nothing has been shown is made again, after an exponential wait with
    jitter or the endpoint's own Retry-After, and only where that ends before the deadline. Asked
    again are endpoints that were not available, throttled, or said nothing for `first_token_s`
    seconds (None: until the deadline). What opens the breaker: unavailability, protocol errors,
    and silences of `silent_after_s`.
    """

    def __init__(
        self,
        generator: Generator,
        breaker: Breaker,
        *,
        attempts: int = 3,
        wait_initial_s: float = WAIT_INITIAL_S,
        first_token_s: float | None = None,
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        self.breaker = breaker
        self._generator = generator
        self._attempts = attempts
        self._first_token_s = first_token_s
        self._silent_after_s = min(silent_after_s, first_token_s or silent_after_s)
        self._wait = wait_exponential_jitter(
            multiplier=wait_initial_s, max=WAIT_MAX_S, jitter=wait_initial_s
        )

    @property
    def name(self) -> str:
        return self._generator.name

    async def aclose(self) -> None:
        await self._generator.aclose()

    async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """As the generator's own; GeneratorCircuitOpen where it is not asked."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(
                (GeneratorUnavailable, GeneratorThrottled, GeneratorTimeout)
            ),
            wait=self._wait_s,
            stop=lambda state: self._gives_up(state, deadline),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                made = _Attempt(self._generator, self.breaker, self._silent_after_s)
                await made.begin(prompt, deadline, self._first_token_s)
        async with aclosing(made.deltas()) as deltas:
            async for delta in deltas:
                yield delta

    def _wait_s(self, state: RetryCallState) -> float:
        """The wait before the next attempt: no shorter than the endpoint asks for."""
        return max(float(self._wait(state)), _failure_of(state).retry_after_s or 0.0)

    def _gives_up(self, state: RetryCallState, deadline: float) -> bool:
        if isinstance(_failure_of(state), GeneratorCircuitOpen):
            return True
        last = state.attempt_number >= self._attempts
        return last or time.monotonic() + state.upcoming_sleep >= deadline - LEAST_S


class _Attempt:
    """One stream of the generator, whose outcome the breaker hears."""

    def __init__(self, generator: Generator, breaker: Breaker, silent_after_s: float) -> None:
        self._generator = generator
        self._permit = breaker.admit()
        self._silent_after_s = silent_after_s
        self._heard_at = time.monotonic()
        self._first: Delta | None = None

    async def begin(self, prompt: Prompt, deadline: float, first_token_s: float | None) -> None:
        """Waits for the first delta; closes the stream where there is none."""
        stream = self._generator.stream(prompt, deadline=deadline)
        self._stream = cast(AsyncGenerator[Delta, None], stream)
        try:
            async with asyncio.timeout(first_token_s):
                self._first = await self._next()
        except TimeoutError:
            self._permit.failed()
            raise GeneratorTimeout(
                f"generator endpoint said nothing for {first_token_s} s: check it, or raise"
                " RAG_GENERATOR_FIRST_TOKEN_S"
            ) from None
        except StopAsyncIteration:
            raise GeneratorFailure(
                "generator endpoint finished without any text: check the model"
            ) from None
        finally:
            if self._first is None:
                self._permit.abandoned()
                await self._stream.aclose()
        if self._permit.is_probe:  # it answers again; how the answer ends is another matter
            self._permit.succeeded()

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """All of them, the first included."""
        async with aclosing(self._stream):
            try:
                if self._first is not None:
                    yield self._first
                while True:
                    yield await self._next()
            except StopAsyncIteration:
                self._permit.succeeded()
            finally:
                self._permit.abandoned()

    async def _next(self) -> Delta:
        try:
            delta = await anext(self._stream)
        except (GeneratorUnavailable, GeneratorProtocolError):
            self._permit.failed()
            raise
        except GeneratorTimeout:
            if time.monotonic() - self._heard_at >= self._silent_after_s:
                self._permit.failed()
            raise
        except GeneratorFailure:  # throttled or refused: it is there, and speaks
            self._permit.succeeded()
            raise
        self._heard_at = time.monotonic()
        return delta


def _failure_of(state: RetryCallState) -> GeneratorFailure:
    """What the last attempt ended with; only asked of those that are retried."""
    if state.outcome is None:
        raise RuntimeError("an attempt that has not ended has no failure")
    return cast(GeneratorFailure, state.outcome.exception())
