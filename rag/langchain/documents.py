"""Passages as LangChain's Documents, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from rag.types import Chunk, LegScore, Passage

_STAGES = ("dense", "sparse", "rerank")
_PLACES = ("chunk_id", "doc_id", "uri", "title", "page", "start", "end", "rank", "score")


def document_of_passage(passage: Passage, index_version: str) -> Document:
    """The Document of `passage`; equal to the one that a service's reply gives.

    `id` is the chunk id and `page_content` the passage's text. Metadata: chunk_id, doc_id, uri,
    title, page (from 1, or None), start, end (characters), rank (from 1), score, scores (rank and
    score of `dense`, `sparse` and `rerank`, None where a stage did not see it) and index_version;
    then what the document says of itself, under its own keys. A key that is one of these already
    is kept as `document.<key>`.
    """
    chunk = passage.chunk
    ours = {
        "chunk_id": passage.chunk_id,
        "doc_id": chunk.doc_id,
        "uri": chunk.uri,
        "title": chunk.title,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "rank": passage.rank,
        "score": passage.score,
        "scores": {
            "dense": _leg(passage.dense),
            "sparse": _leg(passage.sparse),
            "rerank": _leg(passage.rerank),
        },
    }
    return _document(chunk.text, ours, chunk.metadata, index_version)


def document_of_wire(passage: Mapping[str, Any], index_version: str) -> Document:
    """The same of one entry of a reply's `passages`; KeyError where it is not one."""
    ours = {name: passage[name] for name in _PLACES}
    ours["scores"] = {stage: passage["scores"][stage] for stage in _STAGES}
    return _document(passage["text"], ours, passage["metadata"], index_version)


def passage_of_document(document: Document, rank: int) -> Passage:
    """A passage of that rank with the document's text, for prompts; any retriever's document
    will do: what its metadata does not say stays empty.
    """
    said = document.metadata
    text = document.page_content
    page = said.get("page")
    chunk = Chunk(
        doc_id=str(said.get("doc_id") or said.get("source") or ""),
        uri=str(said.get("uri") or said.get("source") or ""),
        title=str(said.get("title") or ""),
        text=text,
        start=0,
        end=len(text),
        page=page if isinstance(page, int) else None,
    )
    return Passage(rank, document.id or chunk.chunk_id, chunk, float(said.get("score") or 0.0))


def _document(
    text: str, ours: dict[str, Any], own: Mapping[str, Any], index_version: str
) -> Document:
    metadata = {**ours, "index_version": index_version}
    for key, value in own.items():
        name = f"document.{key}" if key in metadata else key
        metadata[name] = list(value) if isinstance(value, tuple) else value
    return Document(id=ours["chunk_id"], page_content=text, metadata=metadata)


def _leg(score: LegScore | None) -> dict[str, Any] | None:
    return None if score is None else {"rank": score.rank, "score": score.score}
