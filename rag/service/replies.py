"""Replies as the wire has them: plain dictionaries for the hot path, models for the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from rag.types import Answer, LegScore, Passage

STAGES = ("expand", "queue", "embed", "search", "rerank", "generate", "total")


def dumps(value: Mapping[str, Any]) -> bytes:
    """Compact JSON; NaN and infinity, which JSON has not, become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def passage_json(passage: Passage) -> dict[str, Any]:
    """One passage: where it is from, its text, and the rank and score of each stage."""
    chunk = passage.chunk
    return {
        "rank": passage.rank,
        "chunk_id": passage.chunk_id,
        "doc_id": chunk.doc_id,
        "uri": chunk.uri,
        "title": chunk.title,
        "text": chunk.text,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "metadata": dict(chunk.metadata),
        "score": passage.score,
        "scores": {
            "dense": _leg(passage.dense),
            "sparse": _leg(passage.sparse),
            "rerank": _leg(passage.rerank),
        },
    }


def passages_json(passages: Sequence[Passage]) -> list[dict[str, Any]]:
    return [passage_json(passage) for passage in passages]


def answer_json(answer: Answer | None) -> dict[str, Any]:
    """The fields `answer`, `citations` and `abstained`; null and none where no answer was made."""
    if answer is None:
        return {"answer": None, "citations": [], "abstained": False}
    citations = [
        {"start": c.start, "end": c.end, "passages": list(c.passages), "supported": c.supported}
        for c in answer.citations
    ]
    return {"answer": answer.text, "citations": citations, "abstained": answer.abstained}


def timings_json(timings_ms: Mapping[str, float]) -> dict[str, float]:
    """Every stage in its order, in milliseconds; a stage that did not take part is 0."""
    return {stage: round(timings_ms.get(stage, 0.0), 3) for stage in STAGES}


def _leg(score: LegScore | None) -> dict[str, Any] | None:
    return None if score is None else {"rank": score.rank, "score": score.score}


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LegScoreModel(_Reply):
    rank: int = Field(description="From 1")
    score: float


class ScoresModel(_Reply):
    """Each stage's rank and score; null where the stage did not see the passage."""

    dense: LegScoreModel | None
    sparse: LegScoreModel | None
    rerank: LegScoreModel | None


class PassageModel(_Reply):
    rank: int = Field(description="From 1; what citations name")
    chunk_id: str
    doc_id: str
    uri: str
    title: str
    text: str
    page: int | None = Field(description="From 1; null in formats without pages")
    start: int = Field(description="First character in the document's text")
    end: int
    metadata: dict[str, Any]
    score: float | None = Field(description="The score that ranked it")
    scores: ScoresModel


class CitationModel(_Reply):
    """A sentence, `answer[start:end]`, and the ranks of the passages it names, maybe none."""

    start: int
    end: int
    passages: list[int]
    supported: bool | None = Field(
        description="Whether they bear it out, or where it names none, whether any passage does;"
        " null: there was nothing to check"
    )


class TimingsModel(_Reply):
    """Milliseconds of each stage."""

    expand: float
    queue: float
    embed: float
    search: float
    rerank: float
    generate: float
    total: float


class InvocationReply(_Reply):
    """`answer` and `citations` are left out when `mode` is `retrieve`."""

    answer: str | None = Field(None, description="Null when `degraded` says why")
    citations: list[CitationModel] = []
    abstained: bool = Field(False, description="Whether the answer is that there is none")
    passages: list[PassageModel]
    index_version: str
    generator: str | None = Field(description="Who wrote the answer; null: nobody was asked")
    queries: list[str] = Field([], description="What was searched, if not just the query")
    degraded: list[str] = Field(
        description="What was left out without failing the request, as `stage: reason: text`"
    )
    timings_ms: TimingsModel
    request_id: str


class PassagesFrame(_Reply):
    """The first frame of a stream."""

    type: Literal["passages"]
    passages: list[PassageModel]
    index_version: str
    request_id: str


class DeltaFrame(_Reply):
    """The next piece of the answer."""

    type: Literal["delta"]
    text: str


class DoneFrame(_Reply):
    """The last frame: the whole answer, its citations, and where the time went."""

    type: Literal["done"]
    answer: str | None = None
    citations: list[CitationModel] = []
    abstained: bool = Field(False, description="Whether the answer is that there is none")
    index_version: str
    generator: str | None
    queries: list[str] = []
    degraded: list[str]
    timings_ms: TimingsModel
    request_id: str


class ErrorBody(_Reply):
    type: str = Field(examples=["invalid_request"])
    message: str
    request_id: str


class ErrorReply(_Reply):
    """What every reply that is not 200 holds."""

    error: ErrorBody


class ErrorFrame(_Reply):
    """The last frame of a stream that failed after it began."""

    type: Literal["error"]
    error: ErrorBody
