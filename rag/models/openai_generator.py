"""A generator behind any OpenAI-compatible `/v1/chat/completions` (vLLM, LMI, Ollama, TGI)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import httpx2

from rag.errors import (
    ConfigurationError,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorTimeout,
)
from rag.models.generator import Delta, Prompt
from rag.models.openai_frames import message_of, read_chunk, read_completion
from rag.models.wire.chunks import Chunk
from rag.models.wire.endpoint import (
    Endpoint,
    failure_of_status,
    json_bytes,
    media_type,
    read_body,
    within,
)

_GRACE_S = 1.0  # waited for `[DONE]` after the frame with the finish reason
_DRAIN_S = 0.2  # waited for the end of the body after `[DONE]`


class OpenAIGenerator:
    """Streams chat completions from one endpoint.

    `base_url` may end at the host, at `/v1` or at `/chat/completions`. `extra` is merged into each
    request's body. For `client` and `timeout_connect_s` see `Endpoint`. Raises ConfigurationError
    for a base URL that is not http(s).
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_connect_s: float = 5.0,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._url = _completions_url(base_url)
        self._model = model
        self._extra = dict(extra or {})
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        self._headers |= {"Content-Type": "application/json", **(headers or {})}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._endpoint = Endpoint(
            secrets=(api_key, *(headers or {}).values()),
            timeout_connect_s=timeout_connect_s,
            client=client,
        )

    @property
    def name(self) -> str:
        return self._model

    async def aclose(self) -> None:
        """Closes the connections, unless the client came from outside."""
        await self._endpoint.aclose()

    def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """Yields the text of the first choice as it arrives, and how it ended.

        Raises GeneratorUnavailable (refused, reset, 5xx), GeneratorThrottled (429),
        GeneratorTimeout (shortly before `deadline`), GeneratorProtocolError (not the protocol, or
        a stream that ends without a finish), and GeneratorFailure for all else.
        """
        return self._endpoint.answer(
            self._url, self._body(prompt), self._headers, self._read, deadline=deadline
        )

    def _body(self, prompt: Prompt) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "stream": True,
            **self._extra,
        }
        return json_bytes(body)

    async def _read(
        self, response: httpx2.Response, deadline: float
    ) -> AsyncGenerator[Chunk, None]:
        if response.status_code != 200:
            body = await within(deadline, read_body(response))
            wait = response.headers.get("retry-after")
            failure = failure_of_status(response.status_code, message_of(body), wait)
            raise self._endpoint.masked(failure)
        content_type = media_type(response)
        if content_type == "text/event-stream":
            async with aclosing(self._read_events(response, deadline)) as chunks:
                async for chunk in chunks:
                    yield chunk
        elif content_type == "application/json":
            yield self._parse(read_completion, await within(deadline, read_body(response)))
        else:
            raise GeneratorProtocolError(
                f"generator endpoint answered with content type {content_type[:80]!r}: "
                "expected text/event-stream; check that the base URL is OpenAI-compatible"
            )

    async def _read_events(
        self, response: httpx2.Response, deadline: float
    ) -> AsyncGenerator[Chunk, None]:
        source = aiter(httpx2.EventSource(response))
        events = cast(AsyncGenerator[httpx2.ServerSentEvent, None], source)
        finished_at = 0.0
        try:
            while True:
                until = min(deadline, finished_at + _GRACE_S) if finished_at else deadline
                try:
                    event = await within(until, _next(events))
                except (GeneratorTimeout, httpx2.HTTPError):
                    if finished_at:  # all the text is here; only the courtesy is missing
                        return
                    raise
                if event is None:
                    break
                if event.data.strip() == "[DONE]":
                    await _drain(events)
                    return
                chunk = self._parse(read_chunk, event.data)
                yield chunk
                if chunk.reason is not None:
                    finished_at = time.monotonic()
        finally:
            await events.aclose()
        if not finished_at:
            raise GeneratorProtocolError(
                "generator endpoint ended its stream without a finish reason or [DONE]: "
                "the answer may be cut short; ask again"
            )

    def _parse(self, reader: Any, data: str) -> Chunk:
        try:
            chunk: Chunk = reader(data)
        except GeneratorFailure as failure:
            raise self._endpoint.masked(failure) from None
        return chunk


def _completions_url(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url.strip().rstrip("/"))
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"generator base URL cannot be read: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("generator base URL must be http(s)://host[:port][/v1]")
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d+\w*$", path) else "/v1/chat/completions"
    return url.copy_with(path=path)


async def _next(events: AsyncIterator[httpx2.ServerSentEvent]) -> httpx2.ServerSentEvent | None:
    async for event in events:
        if event.data.strip():
            return event
    return None


async def _drain(events: AsyncIterator[httpx2.ServerSentEvent]) -> None:
    """Reads what follows `[DONE]`, so that the connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in events:
                pass
    except (TimeoutError, httpx2.HTTPError):
        return
