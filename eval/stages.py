"""The opt-in stages around a search, evaluated: query expansion before it, reranking after it."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from eval.datasets import Dataset
from eval.rankers import TIMED_TOP_K, Seen, Texts, rank_one_by_one, timed
from eval.runs import Run
from eval.vectors import Advance
from rag.answering.expansion import expand
from rag.errors import ConfigurationError, RerankerFailure
from rag.models.generator import Generator
from rag.models.load_generator import GeneratorSpec, load_generator
from rag.models.load_reranker import Backend, RerankerSpec, load_reranker
from rag.models.reranker import Reranker
from rag.retrieval.merging import POOL, RERANK_DEPTH, merged, reordered
from rag.retrieval.retriever import Retriever
from rag.types import Mode, Passage, Query

Expansion = Literal["multi", "hyde", "decompose"]
"""Of a single question; there is no earlier turn that `rewrite` could draw on."""
DEADLINE_S = 50.0
"""Of one query, its stages together: a service's default."""
BY_SERVICE = "service"
"""What `rerank` is where the service has the reranker."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Which stages. `expand` asks the OpenAI-compatible endpoint at `generator_url` for `model`.
    `rerank` is a cross-encoder's folder or the URL of a rerank endpoint, which reads the first
    `depth` passages. A service has its own of both: there `expand` and BY_SERVICE turn them on.
    """

    expand: str | None = None
    generator_url: str | None = None
    generator_model: str | None = None
    rerank: str | None = None
    rerank_model: str | None = None
    rerank_dialect: str = "tei"
    depth: int = RERANK_DEPTH
    api_key: str | None = field(default=None, repr=False)

    def check(self, *, of_service: bool) -> None:
        """Raises ConfigurationError for stages that cannot be run so."""
        if self.expand is not None and self.expand not in get_args(Expansion):
            raise ConfigurationError(
                f"--expand is '{self.expand}'; use one of {', '.join(get_args(Expansion))}"
            )
        named = (self.generator_url is not None, self.generator_model is not None)
        if of_service:
            if any(named):
                raise ConfigurationError("a service expands with its own generator; name none")
            if self.rerank not in (None, BY_SERVICE):
                raise ConfigurationError(f"a service has its reranker; use --rerank {BY_SERVICE}")
        elif self.rerank == BY_SERVICE:
            raise ConfigurationError(f"--rerank {BY_SERVICE} goes with --url; name a folder or URL")
        elif named != (self.expand is not None,) * 2:
            raise ConfigurationError(
                "--expand, --generator-url and --generator-model belong together; give all or none"
            )
        if self.depth < 1:
            raise ConfigurationError(f"--rerank-depth is {self.depth}; use 1 or more")

    @property
    def wanted(self) -> bool:
        return self.expand is not None or self.rerank is not None

    def request_fields(self) -> dict[str, Any]:
        """What turns them on in a request to a service."""
        expansion = {} if self.expand is None else {"query_expansion": self.expand}
        return expansion | ({} if self.rerank is None else {"rerank": True})


class StagedRanker:
    """An index searched with the stages around it, one query at a time, as a service does it.

    `top_k` passages are ranked. A stage that fails leaves the query or the order as it was, and
    is counted in `system`. `close` when done.
    """

    def __init__(
        self,
        retriever: Retriever,
        stages: Stages,
        system: Mapping[str, Any],
        *,
        fusion: Mapping[str, Any] | None = None,
        top_k: int = POOL,
    ) -> None:
        self._retriever, self._stages, self._top_k = retriever, stages, top_k
        self._query = Query("", fusion=fusion)
        self._system = dict(system)
        self._degraded = 0
        self._loop = asyncio.Runner()
        self._generator = _generator(stages)
        self._reranker = _reranker(stages)
        self._last: tuple[str, list[Query], bool] | None = None

    @property
    def system(self) -> Mapping[str, Any]:
        stages: dict[str, Any] = {"degraded": self._degraded}
        if self._generator is not None:
            stages |= {"expand": self._stages.expand, "generator": self._generator.name}
        if self._reranker is not None:
            stages |= {"rerank": self._reranker.name, "rerank_depth": self._stages.depth}
        return {**self._system, "depth": self._top_k, **stages}

    def rank(
        self, dataset: Dataset, modes: Sequence[Mode], texts: Texts, advance: Advance
    ) -> dict[Mode, Run]:
        def ask(text: str, mode: Mode) -> list[Seen]:
            if self._last is None or self._last[0] != text:  # one expansion serves every mode
                self._last = text, *self._expand(text, time.monotonic() + DEADLINE_S)
            _, queries, failed = self._last
            passages, unread = self._search(queries, mode, time.monotonic() + DEADLINE_S)
            self._degraded += failed or unread
            return [
                Seen(p.chunk.doc_id, p.score, p.chunk.title, p.chunk.text)
                for p in passages[: self._top_k]
            ]

        return rank_one_by_one(dataset, modes, ask, texts, advance)

    def time(self, queries: Sequence[str], mode: Mode) -> list[float]:
        def ask(text: str) -> None:
            deadline = time.monotonic() + DEADLINE_S
            expanded, _ = self._expand(text, deadline)
            self._search(expanded, mode, deadline)[0][:TIMED_TOP_K]

        return timed(ask, queries)

    def close(self) -> None:
        """Lets go of connections and threads."""
        if self._generator is not None:
            self._loop.run(self._generator.aclose())
        if self._reranker is not None:
            self._reranker.close()
        self._loop.close()

    def _expand(self, text: str, deadline: float) -> tuple[list[Query], bool]:
        """What to search for, and whether the expansion failed."""
        query = replace(self._query, text=unicodedata.normalize("NFC", text), top_k=self._top_k)
        if self._generator is None:
            return [query], False
        method = cast(Expansion, self._stages.expand)
        made = self._loop.run(
            expand(query.text, (), method=method, generator=self._generator, deadline=deadline)
        )
        return made.queries(query, max(POOL, self._top_k)), bool(made.notes)

    def _search(
        self, queries: Sequence[Query], mode: Mode, deadline: float
    ) -> tuple[list[Passage], bool]:
        """The passages of all queries together, best first, and whether reranking failed."""
        legs = [
            replace(query, legs=query.legs if mode is Mode.HYBRID else mode) for query in queries
        ]
        rankings = [found.passages for found in self._retriever.search(legs)]
        passages = merged(rankings, max(self._top_k, self._stages.depth))
        if self._reranker is None or not passages:
            return passages, False
        texts = [passage.chunk.indexed_text for passage in passages[: self._stages.depth]]
        try:
            scores = self._reranker.score(queries[0].text, texts, deadline=deadline)
        except RerankerFailure:
            return passages, True
        return reordered(passages, scores), False


def _generator(stages: Stages) -> Generator | None:
    if stages.expand is None:
        return None
    return load_generator(
        GeneratorSpec(
            "openai", stages.generator_url, stages.generator_model, api_key=stages.api_key
        )
    )


def _reranker(stages: Stages) -> Reranker | None:
    where = stages.rerank
    if where is None:
        return None
    if where.startswith(("http://", "https://")):
        return load_reranker(
            RerankerSpec(
                "remote",
                url=where,
                dialect=stages.rerank_dialect,
                model=stages.rerank_model,
                api_key=stages.api_key,
            )
        )
    exported = (Path(where) / "onnx" / "model.onnx").is_file()
    backend: Backend = "onnx" if exported else "torch"
    return load_reranker(RerankerSpec(backend, path=Path(where)))
