"""A generator behind any OpenAI-compatible `/v1/chat/completions` (vLLM, LMI, Ollama, TGI)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from rag.errors import (
    ConfigurationError,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Delta, Prompt
from rag.models.openai_frames import failure_of_status, read_chunk, read_completion

T = TypeVar("T")

_MARGIN_S = 0.05  # left to the caller to say, before its own deadline, that there was no answer
_GRACE_S = 1.0  # waited for `[DONE]` after the frame with the finish reason
_DRAIN_S = 0.2  # waited for the end of the body after `[DONE]`
_MAX_BODY = 16 * 2**20  # bytes of a body that is read whole


class OpenAIGenerator:
    """Streams chat completions from one endpoint.

    `base_url` may end at the host, at `/v1` or at `/chat/completions`. `extra` is merged into each
    request's body. Connections are pooled and reused; `timeout_connect_s` bounds opening one.
    Proxy settings and certificates of the environment are not read: a `client` of one's own
    brings them, and is then closed by whoever made it. Raises ConfigurationError for a base URL
    that is not http(s).
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
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = _completions_url(base_url)
        self._model = model
        self._extra = dict(extra or {})
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        self._headers.update(headers or {})
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._secrets = [s for s in (api_key, *(headers or {}).values()) if s and len(s) >= 6]
        self._timeout = httpx.Timeout(None, connect=timeout_connect_s)
        self._owns_client = client is None
        self._client = client or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
        )

    @property
    def name(self) -> str:
        return self._model

    async def aclose(self) -> None:
        """Closes the connections, unless the client came from outside."""
        if self._owns_client:
            await self._client.aclose()

    async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """Yields the text of the first choice as it arrives; never an empty piece.

        Raises GeneratorUnavailable (refused, reset, 5xx), GeneratorThrottled (429),
        GeneratorTimeout (shortly before `deadline`), GeneratorProtocolError (not the protocol, or
        a stream that ends without a finish), and GeneratorFailure for all else.
        """
        try:
            response = await _within(deadline, self._send(prompt))
            try:
                async with aclosing(self._read(response, deadline)) as deltas:
                    async for delta in deltas:
                        yield delta
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise self._failure_of_transport(error) from error

    async def _send(self, prompt: Prompt) -> httpx.Response:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "stream": True,
            **self._extra,
        }
        request = self._client.build_request(
            "POST", self._url, json=body, headers=self._headers, timeout=self._timeout
        )
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def _read(self, response: httpx.Response, deadline: float) -> AsyncGenerator[Delta, None]:
        if response.status_code != 200:
            body = await _within(deadline, _read_body(response))
            raise self._say(failure_of_status(response.status_code, body))
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        has_text = False
        if content_type == "text/event-stream":
            async with aclosing(self._read_events(response, deadline)) as texts:
                async for text in texts:
                    has_text = True
                    yield Delta(text)
        elif content_type == "application/json":
            text = self._parse(read_completion, await _within(deadline, _read_body(response)))
            if text:
                has_text = True
                yield Delta(text)
        else:
            raise GeneratorProtocolError(
                f"generator endpoint answered with content type {content_type[:80]!r}: "
                "expected text/event-stream; check that the base URL is OpenAI-compatible"
            )
        if not has_text:
            raise GeneratorFailure(
                "generator endpoint finished without any text: raise max_tokens or check the model"
            )

    async def _read_events(
        self, response: httpx.Response, deadline: float
    ) -> AsyncGenerator[str, None]:
        events = EventSource(response).aiter_sse()
        finished_at = 0.0
        try:
            while True:
                until = min(deadline, finished_at + _GRACE_S) if finished_at else deadline
                try:
                    event = await _within(until, _next(events))
                except (GeneratorTimeout, httpx.HTTPError):
                    if finished_at:  # all the text is here; only the courtesy is missing
                        return
                    raise
                if event is None:
                    break
                if event.data.strip() == "[DONE]":
                    await _drain(events)
                    return
                chunk = self._parse(read_chunk, event.data)
                if chunk.text:
                    yield chunk.text
                if chunk.is_last:
                    finished_at = time.monotonic()
        finally:
            await events.aclose()
        if not finished_at:
            raise GeneratorProtocolError(
                "generator endpoint ended its stream without a finish reason or [DONE]: "
                "the answer may be cut short; ask again"
            )

    def _parse(self, reader: Any, data: str) -> Any:
        try:
            return reader(data)
        except GeneratorFailure as failure:
            raise self._say(failure) from None

    def _say(self, failure: GeneratorFailure) -> GeneratorFailure:
        """The failure with secrets taken out of what the endpoint said."""
        message = str(failure)
        for secret in self._secrets:
            message = message.replace(secret, "***")
        message = re.sub(r"(?i)\b(bearer\s+|sk-)[\w.*~+/-]+", r"\1***", message)
        return type(failure)(message)

    def _failure_of_transport(self, error: httpx.HTTPError) -> GeneratorFailure:
        where = f"{self._url.host}:{self._url.port or self._url.scheme}"
        if isinstance(error, httpx.ConnectTimeout):
            what = f"did not accept a connection in {self._timeout.connect} s"
        elif isinstance(error, httpx.ConnectError):
            what = "refused the connection"
        elif isinstance(error, httpx.DecodingError) or _is_not_http(error):
            return GeneratorProtocolError(
                f"generator endpoint {where} does not speak HTTP properly"
            )
        else:
            what = "closed the connection before it had answered"
        return GeneratorUnavailable(f"generator endpoint {where} {what}: check that it is running")


def _is_not_http(error: httpx.HTTPError) -> bool:
    """Whether the bytes were not HTTP, rather than HTTP that stopped too early."""
    if not isinstance(error, httpx.RemoteProtocolError):
        return False
    return not re.search(r"disconnected|peer closed|connection closed", str(error), re.IGNORECASE)


def _completions_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"generator base URL cannot be read: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("generator base URL must be http(s)://host[:port][/v1]")
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d+\w*$", path) else "/v1/chat/completions"
    return url.copy_with(path=path)


async def _within(deadline: float, work: Coroutine[Any, Any, T]) -> T:
    remaining = deadline - _MARGIN_S - time.monotonic()
    try:
        if remaining <= 0:  # work that never waits would slip past a timer
            work.close()
            raise TimeoutError
        async with asyncio.timeout(remaining):
            return await work
    except TimeoutError as error:
        raise GeneratorTimeout(
            "generator endpoint had not finished at the deadline: raise the deadline, "
            "lower max_tokens, or add capacity"
        ) from error


async def _next(events: AsyncIterator[ServerSentEvent]) -> ServerSentEvent | None:
    async for event in events:
        if event.data.strip():
            return event
    return None


async def _read_body(response: httpx.Response) -> str:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > _MAX_BODY:
            raise GeneratorProtocolError(
                f"generator endpoint sent a body over {_MAX_BODY} bytes: check the base URL"
            )
    return b"".join(parts).decode("utf-8", "replace")


async def _drain(events: AsyncIterator[ServerSentEvent]) -> None:
    """Reads what follows `[DONE]`, so that the connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in events:
                pass
    except (TimeoutError, httpx.HTTPError):
        return
