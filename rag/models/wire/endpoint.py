"""One generator endpoint over HTTP: a request under a deadline, and every fault by its name."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from rag.errors import (
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Delta
from rag.models.wire.chunks import Chunk, deltas

T = TypeVar("T")
Read = Callable[[httpx2.Response, float], AsyncGenerator[Chunk, None]]
"""What a response says, read by a deadline."""

MARGIN_S = 0.05
"""Left to the caller to say, before its own deadline, that there was no answer."""
MAX_BODY_BYTES = 16 * 2**20
"""Of a body that is read whole."""
SAID_CHARS = 200
"""Of the endpoint's own message that are passed on."""
_SHORTEST_SECRET = 6


class Endpoint:
    """A pool of connections to one endpoint.

    `secrets` never stand in a failure's message. `timeout_connect_s` bounds opening a connection;
    all else is bounded by each request's deadline. The certificate authorities are the
    system's. Proxy settings and certificates that environment variables name are not read: a
    `client` of one's own brings them, and is then closed by whoever made it.
    """

    def __init__(
        self,
        *,
        secrets: Iterable[str | None] = (),
        timeout_connect_s: float = 5.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._secrets = [s for s in secrets if s and len(s) >= _SHORTEST_SECRET]
        self._timeout = httpx2.Timeout(None, connect=timeout_connect_s)
        self._owns_client = client is None
        self._client = client or httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Closes the connections, unless the client came from outside."""
        if self._owns_client:
            await self._client.aclose()

    @asynccontextmanager
    async def post(
        self, url: httpx2.URL, content: bytes, headers: Mapping[str, str], *, deadline: float
    ) -> AsyncIterator[httpx2.Response]:
        """The response, its body unread; closed at the end, which stops the endpoint's work.

        Whatever httpx2 raises in here becomes GeneratorUnavailable (refused, reset, ended early) or
        GeneratorProtocolError (bytes that are not HTTP); GeneratorTimeout comes shortly before
        `deadline`, a `time.monotonic()` moment.
        """
        try:
            request = self._client.build_request(
                "POST", url, content=content, headers=headers, timeout=self._timeout
            )
            sending = self._client.send(request, stream=True, follow_redirects=False)
            response = await within(deadline, sending)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx2.HTTPError as error:
            raise self._failure_of_transport(url, error) from error

    async def answer(
        self,
        url: httpx2.URL,
        content: bytes,
        headers: Mapping[str, str],
        read: Read,
        *,
        deadline: float,
    ) -> AsyncGenerator[Delta, None]:
        """The deltas of what `read` makes of the response to one request."""
        async with (
            self.post(url, content, headers, deadline=deadline) as response,
            aclosing(read(response, deadline)) as chunks,
            aclosing(deltas(chunks)) as made,
        ):
            async for delta in made:
                yield delta

    def masked(self, failure: GeneratorFailure) -> GeneratorFailure:
        """The failure with secrets taken out of what the endpoint said."""
        message = str(failure)
        for secret in self._secrets:
            message = message.replace(secret, "***")
        message = re.sub(r"(?i)\b(bearer\s+|sk-)[\w.*~+/-]+", r"\1***", message)
        return type(failure)(message, retry_after_s=failure.retry_after_s)

    def _failure_of_transport(self, url: httpx2.URL, error: httpx2.HTTPError) -> GeneratorFailure:
        where = f"{url.host}:{url.port or url.scheme}"
        if isinstance(error, httpx2.ConnectTimeout):
            what = f"did not accept a connection in {self._timeout.connect} s"
        elif isinstance(error, httpx2.ConnectError):
            what = "refused the connection"
        elif isinstance(error, httpx2.SSEError):
            return GeneratorProtocolError(f"generator endpoint {where} sent too long an event")
        elif isinstance(error, httpx2.DecodingError) or _is_not_http(error):
            return GeneratorProtocolError(
                f"generator endpoint {where} does not speak HTTP properly"
            )
        else:
            what = "closed the connection before it had answered"
        return GeneratorUnavailable(f"generator endpoint {where} {what}: check that it is running")


def failure_of_status(status: int, said: str, retry_after: str | None = None) -> GeneratorFailure:
    """The failure that an HTTP status other than 200 means; `said` is the endpoint's message and
    `retry_after` its Retry-After header.
    """
    said = " ".join(said.split())[:SAID_CHARS] or "no message"
    if 300 <= status < 400 or status < 200:
        return GeneratorProtocolError(
            f"generator endpoint answered {status}: set the base URL to the final address"
        )
    wait_s = _seconds(retry_after)
    if status == 429:
        return GeneratorThrottled(
            f"generator endpoint is over its rate limit (429): {said}", retry_after_s=wait_s
        )
    if status >= 500:
        return GeneratorUnavailable(
            f"generator endpoint failed ({status}): {said}", retry_after_s=wait_s
        )
    return GeneratorFailure(f"generator endpoint refused the request ({status}): {said}")


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """A request's body; characters that UTF-8 does not have become '?'."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


async def within(deadline: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; GeneratorTimeout shortly before `deadline`."""
    remaining = deadline - MARGIN_S - time.monotonic()
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


async def read_body(response: httpx2.Response) -> str:
    """The whole body as text; GeneratorProtocolError above MAX_BODY_BYTES."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise GeneratorProtocolError(
                f"generator endpoint sent a body over {MAX_BODY_BYTES} bytes: check its address"
            )
    return b"".join(parts).decode("utf-8", "replace")


def media_type(response: httpx2.Response) -> str:
    """The body's media type in lower case, without parameters."""
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _is_not_http(error: httpx2.HTTPError) -> bool:
    """Whether the bytes were not HTTP, rather than HTTP that stopped too early."""
    if not isinstance(error, httpx2.RemoteProtocolError):
        return False
    return not re.search(r"disconnected|peer closed|connection closed", str(error), re.IGNORECASE)
