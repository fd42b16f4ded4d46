"""Weaviate's REST API over HTTP: one request, tried again where that can help, and every fault by
its name.

Source: the OpenAPI description of Weaviate, openapi-specs/schema.json in weaviate/weaviate.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import httpx2

from indexer.external.retries import Retries
from rag.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

SAID_CHARS = 200
"""Of the database's own message that are passed on."""


class WeaviateClient:
    """Connections to the server at `url`, with the key `api_key` if there is one, which no message
    shows. `timeout_s` bounds each wait for bytes, `connect_s` opening a connection. Proxies and
    certificates of the environment are used.
    """

    def __init__(
        self,
        url: httpx2.URL,
        api_key: str | None,
        retries: Retries,
        *,
        timeout_s: float = 120.0,
        connect_s: float = 5.0,
    ) -> None:
        self._key = (api_key or "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigurationError("WEAVIATE_API_KEY holds characters that no key has")
        self.where = str(url).rstrip("/")
        self._retries = retries
        self._client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(timeout_s, connect=connect_s),
        )

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        also: Collection[int] = (),
    ) -> tuple[int, Any]:
        """The status, which is 2xx or one of `also`, and what the body says as JSON (None: no
        body). Raises DatabaseUnavailable (refused, reset, silent, 429, 5xx) after its retries, and
        DatabaseError for all else.
        """
        return self._retries(lambda: self._once(method, path, params, body, also))

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Any,
        also: Collection[int],
    ) -> tuple[int, Any]:
        try:
            answer = self._client.request(method, f"/v1/{path}", params=params, json=body)
        except httpx2.DecodingError as error:
            raise DatabaseError(f"{self.where} does not speak HTTP; check the URL") from error
        except httpx2.HTTPError as error:
            raise DatabaseUnavailable(f"{self.where} {_what(error)}; check that it runs") from error
        if not (answer.is_success or answer.status_code in also):
            raise self._failure(answer)
        if not answer.content:
            return answer.status_code, None
        try:
            return answer.status_code, answer.json()
        except ValueError as error:
            if not answer.is_success:
                return answer.status_code, None
            raise DatabaseError(
                f"{self.where} answered with something that is not JSON; check the URL"
            ) from error

    def _failure(self, answer: httpx2.Response) -> DatabaseError:
        status, said = answer.status_code, self._said(answer)
        if status == 401:
            return DatabaseError(
                f"{self.where} takes no such key (401: {said}); set WEAVIATE_API_KEY"
            )
        if status == 403:
            return DatabaseError(
                f"{self.where} does not allow this (403: {said}); set WEAVIATE_API_KEY to a key"
                " that may read and write the collection"
            )
        if 300 <= status < 400:
            return DatabaseError(f"{self.where} answered {status}; name its final address")
        if status == 429 or status >= 500:
            wait = answer.headers.get("retry-after", "")
            return DatabaseUnavailable(
                f"{self.where} failed ({status}: {said}); try again later",
                retry_after_s=float(wait) if wait.isdecimal() else None,
            )
        return DatabaseError(f"{self.where} refused a request ({status}: {said})")

    def _said(self, answer: httpx2.Response) -> str:
        """The message, in either of the shapes that errors have."""
        try:
            value = answer.json()
        except ValueError:
            value = answer.text
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            value = value["message"]
        return self.one_line(messages_of(value) or value)

    def one_line(self, said: Any) -> str:
        """What the database said, on one line, shortened, and without the key."""
        text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:SAID_CHARS] or "no message"


def messages_of(errors: Any) -> str:
    """The messages of an ErrorResponse, {"error": [{"message": …}]}; '' if it is none."""
    found = errors.get("error") if isinstance(errors, dict) else None
    if not isinstance(found, list):
        return ""
    return "; ".join(str(e["message"]) for e in found if isinstance(e, dict) and "message" in e)


def _what(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return "did not accept a connection in time"
    if isinstance(error, httpx2.ConnectError):
        return "cannot be connected to"
    if isinstance(error, httpx2.TimeoutException):
        return "said nothing for too long"
    return "closed the connection before it had answered"
