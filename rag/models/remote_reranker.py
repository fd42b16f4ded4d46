"""A reranker behind a `/rerank` endpoint, in any of the three dialects they speak."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import get_args

import httpx2
import numpy as np

from rag.errors import (
    ConfigurationError,
    RerankerFailure,
    RerankerProtocolError,
    RerankerTimeout,
    RerankerUnavailable,
)
from rag.models.rerank_wire import MAX_TEXTS, Dialect, failure_of_status, read_scores, request_body
from rag.types import Float32

_MAX_BODY = 16 * 2**20  # bytes of an answer
_CONCURRENCY = 8


class RemoteReranker:
    """A `Reranker` that asks one endpoint, within each call's deadline.

    `base_url` may end at the host, at `/v1`, or at `/rerank`. `dialect` is 'tei'
    (text-embeddings-inference), 'jina' or 'cohere'; the last two need `model`. A call with more
    than `max_texts` passages is sent as several requests at once. Scores are the endpoint's own;
    what does not fit its model is cut there. `timeout_s` holds for calls without a deadline.
    Proxy settings of the environment are not read. Connections are pooled on a thread of its own,
    which `close` ends. Raises ConfigurationError for a base URL or a dialect that is none.
    """

    concurrency = _CONCURRENCY

    def __init__(
        self,
        base_url: str,
        *,
        dialect: Dialect = "tei",
        model: str | None = None,
        api_key: str | None = None,
        max_texts: int | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        if dialect not in get_args(Dialect):
            raise ConfigurationError(
                f"the rerank dialect {dialect!r} is not one of {', '.join(get_args(Dialect))}"
            )
        if dialect != "tei" and not model:
            raise ConfigurationError(f"the rerank dialect {dialect} needs the name of a model")
        self._url = _rerank_url(base_url)
        self._dialect = dialect
        self._model = model
        self._secret = api_key or ""
        self._max_texts = max_texts or MAX_TEXTS[dialect]
        self._timeout_s = timeout_s
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Each call is bounded by its deadline.
        self._client = httpx2.AsyncClient(headers=headers, timeout=None, trust_env=False)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="rerank", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._model or f"{self._url.host}:{self._url.port or self._url.scheme}"

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> Float32:
        """As `Reranker.score`. Raises RerankerUnavailable (refused, reset, 5xx, closed),
        RerankerThrottled (429), RerankerTimeout, RerankerProtocolError (an answer that is not one
        finite score for each passage), RerankerFailure for all else.
        """
        if not texts:
            return np.empty(0, dtype=np.float32)
        until = time.monotonic() + self._timeout_s if deadline is None else deadline
        return self._on_loop(query, list(texts), until)

    def close(self) -> None:
        """Closes the connections and ends the thread; calls under way fail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()

    def _on_loop(self, query: str, texts: list[str], deadline: float) -> Float32:
        """Blocks the calling thread while the loop's does the work."""
        closed = RerankerUnavailable("the reranker has been closed; open it again")
        with self._lock:  # what is handed over before `close` is cancelled by it, not forgotten
            if self._closed:
                raise closed
            work = self._score(query, texts, deadline)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (CancelledError, asyncio.CancelledError):
            raise closed from None

    async def _score(self, query: str, texts: list[str], deadline: float) -> Float32:
        parts = [texts[i : i + self._max_texts] for i in range(0, len(texts), self._max_texts)]
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await asyncio.sleep(0)  # a deadline that has passed is noticed before any work
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._ask(query, part)) for part in parts]
        except TimeoutError:
            raise RerankerTimeout(
                f"rerank endpoint {self._where} had not answered at the deadline; raise it, or"
                " rerank fewer"
            ) from None
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
            raise first from first.__cause__
        return np.concatenate([task.result() for task in tasks])

    async def _ask(self, query: str, texts: list[str]) -> Float32:
        body = request_body(self._dialect, self._model, query, texts)
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                answer = await _read(response)
        except httpx2.HTTPError as error:
            raise self._failure_of_transport(error) from error
        if response.status_code != 200:
            said = answer.decode("utf-8", "replace")
            raise failure_of_status(response.status_code, self._censored(said))
        try:
            value = json.loads(answer)
        except ValueError:
            raise RerankerProtocolError(
                f"rerank endpoint {self._where} answered with something that is not JSON;"
                " check its URL"
            ) from None
        return read_scores(self._dialect, value, len(texts))

    def _censored(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    @property
    def _where(self) -> str:
        return f"{self._url.host}:{self._url.port or self._url.scheme}"

    def _failure_of_transport(self, error: httpx2.HTTPError) -> RerankerFailure:
        if isinstance(error, httpx2.ConnectError):
            what = "refused the connection"
        elif isinstance(error, httpx2.DecodingError):
            return RerankerProtocolError(f"rerank endpoint {self._where} does not speak HTTP")
        else:
            what = "closed the connection before it had answered"
        return RerankerUnavailable(f"rerank endpoint {self._where} {what}; check that it runs")


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MAX_BODY:
            raise RerankerProtocolError(
                f"rerank endpoint sent a body over {_MAX_BODY} bytes; check its URL"
            )
    return bytes(body)


def _rerank_url(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url.strip())
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"rerank URL cannot be read: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("rerank URL must be http(s)://host[:port][/rerank]")
    path = url.path.rstrip("/")
    return url.copy_with(path=path if path.endswith("/rerank") else f"{path}/rerank")
