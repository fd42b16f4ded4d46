"""One request after the other to a running service, for the evaluations of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from rag.errors import EvaluationError


class ServiceClient:
    """The service at `url`, with or without `/invocations`; `version` is that of its index."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 70.0
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/invocations") + "/invocations"
        self.version = ""
        self._client = httpx2.Client(timeout=timeout_s, headers=dict(headers or {}))

    def ask(self, body: Mapping[str, Any], *needed: str) -> dict[str, Any]:
        """The reply to `body`; EvaluationError if there is none, if it refuses, if a field `needed`
        is not there, or if the service's index is another than before.
        """
        try:
            response = self._client.post(self.url, json=dict(body))
            reply = response.json()
        except httpx2.HTTPError as error:
            raise EvaluationError(
                f"{self.url} does not answer ({error or type(error).__name__}); start the service"
            ) from None
        except ValueError:
            raise EvaluationError(
                f"{self.url} answered {response.status_code} without JSON; is it this service?"
            ) from None
        if response.status_code != httpx2.codes.OK or not isinstance(reply, dict):
            reason = reply.get("error", {}) if isinstance(reply, dict) else {}
            message = reason.get("message", response.reason_phrase)
            raise EvaluationError(f"{self.url} answered {response.status_code}: {message}")
        for name in (*needed, "index_version"):
            if name not in reply:
                raise EvaluationError(f"{self.url} answered without '{name}'; is it this service?")
        self._check_version(str(reply["index_version"]))
        return reply

    def _check_version(self, version: str) -> None:
        if self.version and version != self.version:
            raise EvaluationError(
                f"{self.url} changed its index from {self.version} to {version} meanwhile;"
                " evaluate again"
            )
        self.version = version
