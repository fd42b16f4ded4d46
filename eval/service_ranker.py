"""A running service as what is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.datasets import Dataset
from eval.rankers import TIMED_TOP_K, Seen, Texts, rank_one_by_one, timed
from eval.runs import Run
from eval.service_client import ServiceClient
from eval.vectors import Advance
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
    ) -> None:
        self._service = ServiceClient(url, headers=headers)
        self._top_k = top_k
        self._fusion = fusion
        self._fields = dict(fields or {})
        self._degraded = 0

    @property
    def system(self) -> Mapping[str, Any]:
        fusion = None if self._fusion is None else dict(self._fusion)
        return {
            "url": self._service.url, "version": self._service.version, "fusion": fusion,
            "depth": self._top_k,
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
        reply = self._service.ask(body, "passages")
        self._degraded += bool(reply.get("degraded"))
        return list(reply["passages"])
