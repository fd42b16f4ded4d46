"""A running service as what is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from eval.datasets import Dataset
from eval.rankers import TIMED_TOP_K, Seen, Texts, rank_one_by_one, timed
from eval.runs import Run
from eval.vectors import Advance
from rag.errors import EvaluationError
from rag.types import Mode


class ServiceRanker:
    """A running service, asked over HTTP as any caller asks it, one request at a time.

    `top_k` is how many passages each request wants: recall beyond it is not seen. `fields` (such as
    `{"query_expansion": "multi"}`) and `headers` go with each request; with fields, `system` tells
    how many replies were degraded, which were ranked without what the fields ask for.
    """

    def __init__(
        self,
        url: str,
        *,
        top_k: int = 100,
        fusion: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/invocations") + "/invocations"
        self._top_k = top_k
        self._fusion = fusion
        self._fields = dict(fields or {})
        self._degraded = 0
        self._client = httpx.Client(timeout=timeout_s, headers=dict(headers or {}))
        self._version = ""

    @property
    def system(self) -> Mapping[str, Any]:
        fusion = None if self._fusion is None else dict(self._fusion)
        return {
            "url": self._url, "version": self._version, "fusion": fusion, "depth": self._top_k,
            **({"fields": self._fields, "degraded": self._degraded} if self._fields else {}),
        }  # fmt: skip

    def rank(
        self, dataset: Dataset, modes: Sequence[Mode], texts: Texts, advance: Advance
    ) -> dict[Mode, Run]:
        def ask(text: str, mode: Mode) -> list[Seen]:
            return [
                Seen(str(p["doc_id"]), p["score"], p["title"], p["text"])
                for p in self._ask(text, mode, self._top_k)
            ]

        return rank_one_by_one(dataset, modes, ask, texts, advance)

    def time(self, queries: Sequence[str], mode: Mode) -> list[float]:
        return timed(lambda text: self._ask(text, mode, TIMED_TOP_K), queries)

    def _ask(self, text: str, mode: Mode, top_k: int) -> list[dict[str, Any]]:
        body: dict[str, Any] = {
            "query": text, "mode": "retrieve", "top_k": top_k, "legs": str(mode), **self._fields,
        }  # fmt: skip
        if self._fusion is not None:
            body["fusion"] = dict(self._fusion)
        try:
            reply = self._client.post(self._url, json=body)
            answer = reply.json()
        except httpx.HTTPError as error:
            raise EvaluationError(
                f"{self._url} does not answer ({error or type(error).__name__}); start the service"
            ) from None
        except ValueError:
            raise EvaluationError(
                f"{self._url} answered {reply.status_code} without JSON; is it this service?"
            ) from None
        if reply.status_code != httpx.codes.OK or not isinstance(answer.get("passages"), list):
            reason = answer.get("error", {}) if isinstance(answer, dict) else {}
            message = reason.get("message", reply.reason_phrase)
            raise EvaluationError(f"{self._url} answered {reply.status_code}: {message}")
        self._check_version(str(answer.get("index_version", "")))
        self._degraded += bool(answer.get("degraded"))
        return list(answer["passages"])

    def _check_version(self, version: str) -> None:
        if self._version and version != self._version:
            raise EvaluationError(
                f"{self._url} changed its index from {self._version} to {version} meanwhile;"
                " evaluate again"
            )
        self._version = version
