"""Who answers the questions of an evaluation: a bundle opened here, or a service at a URL."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eval.service_client import ServiceClient
from eval.vectors import Advance
from rag.answering.answer import Answerer
from rag.answering.support import Support
from rag.errors import EvaluationError, GeneratorFailure
from rag.models.extractive import ExtractiveGenerator
from rag.models.generator import Generator
from rag.models.openai_generator import OpenAIGenerator
from rag.retrieval.calibration import ANSWERABLE
from rag.retrieval.opening import Opened, open_retriever
from rag.types import Answer, Citation, Passage, Query

DEADLINE_S = 50.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What one question got. `text` is None where no answer could be made, and `problem` says why.
    `documents` are the passages' document ids, by rank from 1.
    """

    text: str | None
    citations: tuple[Citation, ...] = ()
    documents: tuple[str, ...] = ()
    problem: str = ""

    @property
    def cited(self) -> list[str]:
        """Ids of the documents that the answer cites, each once, in order."""
        ranks = [rank for citation in self.citations for rank in citation.passages]
        return list(dict.fromkeys(self.documents[rank - 1] for rank in ranks))


@dataclass(frozen=True, slots=True)
class GeneratorEndpoint:
    """An OpenAI-compatible endpoint that answers for a bundle instead of the extractive one."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)


class AnswerSource(Protocol):
    """Answers questions, in order. `system` says who answers, for the result's reader."""

    @property
    def system(self) -> Mapping[str, Any]: ...

    def answer(self, questions: Sequence[str], advance: Advance) -> list[Reply]: ...


class BundleAnswers:
    """A bundle opened here, answered from by a generator, as `rag serve` does it."""

    def __init__(
        self,
        bundle: str,
        *,
        top_k: int = 5,
        endpoint: GeneratorEndpoint | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._opened = open_retriever(bundle, cache_dir=cache_dir)
        self._top_k = top_k
        self._endpoint = endpoint

    @property
    def system(self) -> Mapping[str, Any]:
        manifest = self._opened.bundle.manifest
        return {
            "version": manifest.version,
            "generator": self._endpoint.model if self._endpoint else ExtractiveGenerator.name,
            "fusion": manifest.fusion,
            "top_k": self._top_k,
        }

    def answer(self, questions: Sequence[str], advance: Advance) -> list[Reply]:
        return asyncio.run(self._all(questions, advance))

    async def _all(self, questions: Sequence[str], advance: Advance) -> list[Reply]:
        generator = _generator(self._opened, self._endpoint)
        support = Support(self._opened.bundle.analyzer.words, self._opened.embedder)
        answerer = Answerer(generator, support=support, abstain_below=ANSWERABLE)
        replies = []
        try:
            for question in questions:
                replies.append(await self._one(answerer, question))
                advance("answer", 1, len(questions))
        finally:
            await generator.aclose()
        return replies

    def _best_score(self, query: Query, found: Sequence[Passage]) -> float | None:
        known = self._opened.retriever.searcher.has_probabilities(query)
        return found[0].score if found and known else None

    async def _one(self, answerer: Answerer, question: str) -> Reply:
        text = unicodedata.normalize("NFC", question)
        query = Query(text, self._top_k)
        found = self._opened.retriever.search([query])[0].passages
        deadline = time.monotonic() + DEADLINE_S
        try:
            answer = await answerer.answer(
                text, found, best_score=self._best_score(query, found), deadline=deadline
            )
        except GeneratorFailure as failure:
            return Reply(None, documents=_documents(found), problem=str(failure))
        return _reply(answer, found)


class ServiceAnswers:
    """A running service, asked over HTTP as any caller asks it, one question at a time."""

    def __init__(
        self, url: str, *, top_k: int = 5, headers: Mapping[str, str] | None = None
    ) -> None:
        self._service = ServiceClient(url, headers=headers)
        self._top_k = top_k
        self._generator = ""

    @property
    def system(self) -> Mapping[str, Any]:
        return {
            "url": self._service.url, "version": self._service.version,
            "generator": self._generator, "top_k": self._top_k,
        }  # fmt: skip

    def answer(self, questions: Sequence[str], advance: Advance) -> list[Reply]:
        replies = []
        for question in questions:
            replies.append(self._one(question))
            advance("answer", 1, len(questions))
        return replies

    def _one(self, question: str) -> Reply:
        raw = self._service.ask({"query": question, "top_k": self._top_k})
        try:
            self._generator = str(raw["generator"])
            citations = tuple(
                Citation(c["start"], c["end"], tuple(c["passages"]), c["supported"])
                for c in raw["citations"]
            )
            documents = tuple(str(p["doc_id"]) for p in raw["passages"])
            return Reply(raw["answer"], citations, documents, "; ".join(raw["degraded"]))
        except (KeyError, TypeError) as error:
            raise EvaluationError(
                f"{self._service.url} answered without {error}; is it this service?"
            ) from None


def _generator(opened: Opened, endpoint: GeneratorEndpoint | None) -> Generator:
    if endpoint is not None:
        return OpenAIGenerator(endpoint.url, endpoint.model, api_key=endpoint.api_key)
    embedder = opened.embedder
    return ExtractiveGenerator(
        opened.bundle.analyzer.words, embedder.embed_passages, embedder.embed_queries
    )


def _reply(answer: Answer, passages: Sequence[Passage]) -> Reply:
    return Reply(answer.text, answer.citations, _documents(passages))


def _documents(passages: Sequence[Passage]) -> tuple[str, ...]:
    return tuple(passage.chunk.doc_id for passage in passages)
