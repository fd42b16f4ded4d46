"""Where the retriever's passages come from: what a source is, and the one inside this process."""

from __future__ import annotations

import asyncio
from typing import Protocol, runtime_checkable

from langchain_core.documents import Document

from rag.langchain.documents import document_of_passage
from rag.retrieval.opening import Opened
from rag.types import Query


@runtime_checkable
class Source(Protocol):
    """Answers one query with Documents, best first; passages with a score below `min_score` are
    left out. Raises RagError. Safe to call from several threads and event loops.
    """

    def search(self, query: Query, min_score: float | None) -> list[Document]: ...

    async def asearch(self, query: Query, min_score: float | None) -> list[Document]: ...


class BundleSource:
    """A bundle opened in this process (see `rag.retrieval.opening.open_retriever`)."""

    def __init__(self, opened: Opened) -> None:
        self._retriever = opened.retriever
        self._version = opened.bundle.manifest.version

    def search(self, query: Query, min_score: float | None) -> list[Document]:
        """Raises InvalidRequest or InvalidFilter."""
        passages = self._retriever.search([query])[0].passages
        return [
            document_of_passage(passage, self._version)
            for passage in passages
            if min_score is None or passage.score >= min_score
        ]

    async def asearch(self, query: Query, min_score: float | None) -> list[Document]:
        """The same on a thread: the search is computation, and must not hold the event loop."""
        return await asyncio.to_thread(self.search, query, min_score)
