"""What rerank endpoints are sent and what they answer, by dialect.

text-embeddings-inference: {query, texts, truncate} -> [{index, score}].
Jina and Cohere: {model, query, documents, top_n} -> {results: [{index, relevance_score}]}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rag.errors import (
    RerankerFailure,
    RerankerProtocolError,
    RerankerThrottled,
    RerankerUnavailable,
)
from rag.types import Float32

Dialect = Literal["tei", "jina", "cohere"]
MAX_TEXTS: Mapping[str, int] = {"tei": 32, "jina": 1000, "cohere": 1000}
"""Passages in one request: what each kind of endpoint takes unless it is told otherwise."""
_SAID = 200  # characters of the endpoint's own message that are passed on


def request_body(
    dialect: Dialect, model: str | None, query: str, texts: Sequence[str]
) -> dict[str, Any]:
    """The JSON body that asks for a score of every text."""
    if dialect == "tei":
        return {"query": query, "texts": list(texts), "truncate": True}
    body = {"model": model, "query": query, "documents": list(texts), "top_n": len(texts)}
    return body | ({"return_documents": False} if dialect == "jina" else {})


def read_scores(dialect: Dialect, answer: Any, count: int) -> Float32:
    """float32 (count,): the scores by index; the answer may have them in any order.

    Raises RerankerProtocolError unless there is exactly one finite score for each of the `count`
    passages.
    """
    key = "score" if dialect == "tei" else "relevance_score"
    results = answer
    if dialect != "tei":
        results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise _malformed(f"is not a {'list' if dialect == 'tei' else 'map with results'}")
    scores: dict[int, float] = {}
    for result in results:
        index = result.get("index") if isinstance(result, dict) else None
        score: Any = result.get(key) if isinstance(result, dict) else None
        if type(index) is not int or not 0 <= index < count:
            raise _malformed(f"has the index {index!r} for {count} passages")
        if index in scores:
            raise _malformed(f"scores the passage {index} twice")
        if type(score) not in (int, float) or not _fits(score):
            raise _malformed(f"has no finite {key} for the passage {index}")
        scores[index] = float(score)
    missing = next((index for index in range(count) if index not in scores), None)
    if missing is not None:
        raise _malformed(f"scores {len(scores)} of {count} passages, not the passage {missing}")
    return np.array([scores[index] for index in range(count)], dtype=np.float32)


def failure_of_status(status: int, body: str) -> RerankerFailure:
    """The failure that an HTTP status other than 200 means, with the endpoint's own message."""
    said = " ".join(_message(body).split())[:_SAID] or "no message"
    if status == 429:
        return RerankerThrottled(f"rerank endpoint is over its rate limit (429): {said}")
    if status >= 500:
        return RerankerUnavailable(f"rerank endpoint failed ({status}): {said}")
    if status < 400:
        return RerankerProtocolError(
            f"rerank endpoint answered {status}; set its URL to the final address"
        )
    return RerankerFailure(f"rerank endpoint refused the request ({status}): {said}")


def _fits(score: float) -> bool:
    """Whether it is finite, as a float32 too."""
    return abs(score) <= float(np.finfo(np.float32).max)


def _message(body: str) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            found = value[key]
            return str(found.get("message", found) if isinstance(found, dict) else found)
    return body


def _malformed(what: str) -> RerankerProtocolError:
    return RerankerProtocolError(f"rerank endpoint's answer {what}; check its dialect")
