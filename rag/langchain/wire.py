"""A running service as the retriever's source, over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import orjson
from langchain_core.documents import Document

from rag import errors
from rag.errors import ConfigurationError, DeadlineExceeded, Overloaded, RequestError
from rag.langchain.documents import document_of_wire
from rag.types import Query

TIMEOUT_S = 60.0
"""A little longer than the longest deadline that a service accepts."""


class ServiceSource:
    """The service at `url`, with or without `/invocations`; connections are kept and reused.

    `headers` are sent with each request, such as an authorization. `timeout_s` bounds connecting
    and each wait for bytes. Proxies and certificates of the environment are used. Raises
    ConfigurationError for a URL that is not http(s).
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._address = _address_of(url)
        self._said = str(self._address.copy_with(userinfo=b""))
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._timeout = httpx2.Timeout(timeout_s)
        self._ssl = httpx2.create_ssl_context()
        self._client = httpx2.Client(timeout=self._timeout, verify=self._ssl)
        self._clients: dict[asyncio.AbstractEventLoop, httpx2.AsyncClient] = {}

    def search(self, query: Query, min_score: float | None) -> list[Document]:
        """Raises the service's own error by its name, with its message; ConfigurationError if
        there is no such service; DeadlineExceeded if it does not answer in time.
        """
        body = _body(query, min_score)
        try:
            response = self._client.post(self._address, content=body, headers=self._headers)
        except httpx2.HTTPError as error:
            raise self._failure(error) from None
        return self._documents(response)

    async def asearch(self, query: Query, min_score: float | None) -> list[Document]:
        """The same without a thread."""
        body = _body(query, min_score)
        client = self._client_of(asyncio.get_running_loop())
        try:
            response = await client.post(self._address, content=body, headers=self._headers)
        except httpx2.HTTPError as error:
            raise self._failure(error) from None
        return self._documents(response)

    def _client_of(self, loop: asyncio.AbstractEventLoop) -> httpx2.AsyncClient:
        """A client of that loop: connections cannot be carried from one loop to another."""
        client = self._clients.get(loop)
        if client is None:
            for old in [known for known in list(self._clients) if known.is_closed()]:
                self._clients.pop(old, None)
            client = httpx2.AsyncClient(timeout=self._timeout, verify=self._ssl)
            self._clients[loop] = client
        return client

    def _documents(self, response: httpx2.Response) -> list[Document]:
        try:
            reply = orjson.loads(response.content)
            if response.status_code == 200:
                version = reply["index_version"]
                return [document_of_wire(passage, version) for passage in reply["passages"]]
            problem = reply["error"]
            kind, message = problem["type"], problem["message"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigurationError(
                f"{self._said} answered {response.status_code} with something that is not a reply;"
                " is it a rag service?"
            ) from None
        raise self._problem(str(kind), str(message), response)

    def _problem(self, kind: str, message: str, response: httpx2.Response) -> RequestError:
        said = " ".join(message.split())
        text = f"{self._said} answered {response.status_code}: {said}"
        found = _BY_NAME.get(kind, RequestError)
        if issubclass(found, Overloaded):
            after = response.headers.get("retry-after", "")
            return found(text, retry_after_s=float(after) if after.isdigit() else 1.0)
        return found(text)

    def _failure(self, error: httpx2.HTTPError) -> ConfigurationError | RequestError:
        unreachable = (httpx2.ConnectTimeout, httpx2.ConnectError, httpx2.UnsupportedProtocol)
        if isinstance(error, unreachable):
            return ConfigurationError(
                f"{self._said} cannot be reached ({error}); start a service with rag serve, or"
                " give bundle"
            )
        if isinstance(error, httpx2.TimeoutException):
            return DeadlineExceeded(
                f"{self._said} did not answer in {self._timeout.read:g} s; raise timeout_s or add"
                " capacity"
            )
        return errors.NotReady(
            f"{self._said} closed the connection before it had answered; try again"
        )


def _body(query: Query, min_score: float | None) -> bytes:
    request: dict[str, Any] = {
        "query": query.text,
        "mode": "retrieve",
        "top_k": query.top_k,
        "legs": str(query.legs),
        "filter": query.where,
        "fusion": query.fusion,
        "min_score": min_score,
    }
    try:
        return orjson.dumps({name: value for name, value in request.items() if value is not None})
    except TypeError as error:
        raise errors.InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def _address_of(url: str) -> httpx2.URL:
    try:
        address = httpx2.URL(url.strip().rstrip("/"))
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"url cannot be read: {error}; use http(s)://host:port") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise ConfigurationError("url must be http(s)://host[:port] of a running service")
    path = address.path.rstrip("/")
    return address.copy_with(path=path if path.endswith("/invocations") else f"{path}/invocations")


def _kinds(kind: type[RequestError]) -> Iterator[tuple[str, type[RequestError]]]:
    """(name on the wire, class) of `kind` and all below it."""
    yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(), kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


_BY_NAME: Mapping[str, type[RequestError]] = dict(_kinds(RequestError))
