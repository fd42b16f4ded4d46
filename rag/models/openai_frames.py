"""Reads what an OpenAI-compatible endpoint sends: stream chunks, whole completions, errors."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from rag.errors import (
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorUnavailable,
)

_SAID = 200  # characters of the endpoint's own message that are passed on


class Chunk(NamedTuple):
    """The text one frame adds, and whether it carries the finish reason."""

    text: str
    is_last: bool


def read_chunk(data: str) -> Chunk:
    """One `chat.completion.chunk`.

    Role-only deltas, usage frames and reasoning give empty text. Raises the failure that an error
    frame names, and GeneratorProtocolError for a frame that cannot be read.
    """
    choice = _first_choice(_read_object(data))
    if choice is None:
        return Chunk("", False)
    delta = choice.get("delta")
    if delta is None:
        delta = {}
    if not isinstance(delta, dict):
        raise _malformed("a choice without a delta object")
    return Chunk(_content(delta), choice.get("finish_reason") is not None)


def read_completion(data: str) -> str:
    """The text of a whole `chat.completion`; raises as `read_chunk` does."""
    choice = _first_choice(_read_object(data))
    message = choice.get("message") if choice is not None else None
    if not isinstance(message, dict):
        raise _malformed("a completion without a message")
    return _content(message)


def failure_of_status(status: int, body: str) -> GeneratorFailure:
    """The failure that an HTTP status other than 200 means, with the endpoint's own message."""
    try:
        said = _message(json.loads(body))
    except ValueError:
        said = body
    said = " ".join(said.split())[:_SAID] or "no message"
    if 300 <= status < 400 or status < 200:
        return GeneratorProtocolError(
            f"generator endpoint answered {status}: set the base URL to the final address"
        )
    return _failure(status, said)


def _failure(status: int, said: str) -> GeneratorFailure:
    if status == 429:
        return GeneratorThrottled(f"generator endpoint is over its rate limit (429): {said}")
    if status >= 500:
        return GeneratorUnavailable(f"generator endpoint failed ({status}): {said}")
    return GeneratorFailure(f"generator endpoint refused the request ({status}): {said}")


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
    said = " ".join(_message(frame).split())[:_SAID] or "no message"
    error = frame.get("error")
    fields = error if isinstance(error, dict) else frame
    code = str(fields.get("code") or fields.get("status") or "")
    kind = f"{fields.get('type') or fields.get('error_type') or ''} {code}".lower()
    if code.isdigit() and 400 <= int(code) < 600:
        return _failure(int(code), said)
    if "rate" in kind or "overloaded" in kind:
        return _failure(429, said)
    if "server" in kind or "internal" in kind or "unavailable" in kind:
        return _failure(500, said)
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
