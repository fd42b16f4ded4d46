"""Reads what an OpenAI-compatible endpoint sends: stream chunks, whole completions, errors."""

from __future__ import annotations

import json
from typing import Any

from rag.errors import GeneratorFailure, GeneratorProtocolError
from rag.models.generator import FinishReason
from rag.models.wire.chunks import Chunk, Usage
from rag.models.wire.endpoint import SAID_CHARS, failure_of_status

_REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


def read_chunk(data: str) -> Chunk:
    """One `chat.completion.chunk`.

    Role-only deltas, usage frames and reasoning give empty text. Raises the failure that an error
    frame names, and GeneratorProtocolError for a frame that cannot be read.
    """
    frame = _read_object(data)
    usage = _usage(frame)
    choice = _first_choice(frame)
    if choice is None:
        return Chunk("", usage=usage)
    delta = choice.get("delta")
    if delta is None:
        delta = {}
    if not isinstance(delta, dict):
        raise _malformed("a choice without a delta object")
    return Chunk(_content(delta), _reason(choice), usage)


def read_completion(data: str) -> Chunk:
    """A whole `chat.completion`; raises as `read_chunk` does."""
    frame = _read_object(data)
    choice = _first_choice(frame)
    message = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(message, dict):
        raise _malformed("a completion without a message")
    return Chunk(_content(message), _reason(choice) or "stop", _usage(frame))


def message_of(body: str) -> str:
    """The human part of an error's body, which is JSON in one of the shapes in use, or text."""
    try:
        return _message(json.loads(body))
    except (ValueError, RecursionError):
        return body


def _reason(choice: dict[str, Any]) -> FinishReason | None:
    reason = choice.get("finish_reason")
    return None if reason is None else _REASONS.get(str(reason), "stop")


def _usage(frame: dict[str, Any]) -> Usage | None:
    usage = frame.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    return Usage(*(count if isinstance(count, int) else None for count in counts))


def _read_object(data: str) -> dict[str, Any]:
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed("a frame that is not JSON") from error
    if not isinstance(frame, dict):
        raise _malformed("a frame that is not an object")
    if frame.get("error") or frame.get("object") == "error":
        raise _failure_of_frame(frame)
    return frame


def _failure_of_frame(frame: dict[str, Any]) -> GeneratorFailure:
    said = " ".join(_message(frame).split())[:SAID_CHARS] or "no message"
    error = frame.get("error")
    fields = error if isinstance(error, dict) else frame
    code = str(fields.get("code") or fields.get("status") or "")
    kind = f"{fields.get('type') or fields.get('error_type') or ''} {code}".lower()
    if code.isdigit() and 400 <= int(code) < 600:
        return failure_of_status(int(code), said)
    if "rate" in kind or "overloaded" in kind:
        return failure_of_status(429, said)
    if "server" in kind or "internal" in kind or "unavailable" in kind:
        return failure_of_status(500, said)
    return GeneratorFailure(f"generator endpoint reported an error: {said}")


def _message(body: object) -> str:
    """The human part of the error shapes in use: error.message, error, detail, message."""
    if isinstance(body, dict):
        for key in ("error", "message", "detail"):
            if body.get(key):
                return _message(body[key])
        return ""
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


def _first_choice(frame: dict[str, Any]) -> dict[str, Any] | None:
    """The choice of index 0, or None in a frame without choices (usage, keep-alive)."""
    choices = frame.get("choices")
    if choices is None and "usage" in frame:
        return None
    if not isinstance(choices, list):
        raise _malformed("a frame without choices")
    for choice in choices:
        if not isinstance(choice, dict):
            raise _malformed("a choice that is not an object")
        if choice.get("index", 0) in (0, None):
            return choice
    return None


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, list):  # a list of parts, of which only text is asked for
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise _malformed("content that is not text")
    return content


def _malformed(what: str) -> GeneratorProtocolError:
    return GeneratorProtocolError(
        f"generator endpoint sent {what}: check that the base URL is OpenAI-compatible"
    )
