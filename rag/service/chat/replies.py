"""Chat completions and their chunks as OpenAI's wire has them, with a `rag` object beside them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rag.service import replies
from rag.service.engine import Call, Done
from rag.service.errors import Problem
from rag.types import Passage

# OpenAI's names of error types, by status; what is not here is the server's.
_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


class Completion:
    """The replies to one request: the parts that all of them share."""

    def __init__(self, call: Call, version: str, model: str) -> None:
        self._call = call
        self._version = version
        self._shared = {
            "id": f"chatcmpl-{call.request_id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": version,
        }

    def whole(
        self, done: Done, passages: Sequence[Passage] | None, ignored: Sequence[str]
    ) -> dict[str, Any]:
        """A `chat.completion`."""
        text = None if done.answer is None else done.answer.text
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": done.reason,
        }
        return {
            **self._shared,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_json(done),
            "rag": self.found(passages) | self.closing(done, ignored),
        }

    def chunk(
        self, delta: Mapping[str, Any], reason: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """A `chat.completion.chunk` with one choice."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._shared, "object": "chat.completion.chunk", "choices": [choice], **more}

    def usage_chunk(self, done: Done) -> dict[str, Any]:
        """The chunk after the last, without choices."""
        return {
            **self._shared,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage_json(done),
        }

    def found(self, passages: Sequence[Passage] | None) -> dict[str, Any]:
        """Of `rag`, what is known before the answer; no passages for None."""
        shown = {} if passages is None else {"passages": replies.passages_json(passages)}
        return shown | {"index_version": self._version, "request_id": self._call.request_id}

    def closing(self, done: Done, ignored: Sequence[str]) -> dict[str, Any]:
        """Of `rag`, what is known after it. Spans of citations are in the whole answer."""
        answer = replies.answer_json(done.answer)
        return {
            "citations": answer["citations"],
            "abstained": answer["abstained"],
            "generator": done.generator,
            "queries": done.queries,
            "degraded": done.degraded,
            "ignored": list(ignored),
            "usage_estimated": done.usage.estimated,
            "timings_ms": replies.timings_json(done.timings_ms),
        }


def usage_json(done: Done) -> dict[str, int]:
    asked, said = done.usage.prompt_tokens, done.usage.completion_tokens
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def error_json(problem: Problem, request_id: str) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`; `code` is this service's own type."""
    kind = _TYPES.get(problem.status, "server_error")
    error = {"message": problem.message, "type": kind, "param": None, "code": problem.type}
    return {"error": {**error, "request_id": request_id}}


def models_json(models: Sequence[str]) -> dict[str, Any]:
    """The reply of GET /v1/models."""
    fixed = {"object": "model", "created": 0, "owned_by": "rag-containers"}
    return {"object": "list", "data": [{"id": model, **fixed} for model in models]}
