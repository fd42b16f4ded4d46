"""What containers behind a SageMaker endpoint are asked and answer, by dialect.

'messages' is OpenAI's chat schema (LMI, TGI and vLLM containers speak it); 'lmi' is LMI's own
`inputs` schema, which streams JSON lines; 'tgi' is TGI's, which streams server-sent events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rag.errors import GeneratorFailure, GeneratorProtocolError
from rag.models.generator import FinishReason, Prompt
from rag.models.openai_frames import read_chunk, read_completion
from rag.models.wire.chunks import Chunk, Usage
from rag.models.wire.endpoint import failure_of_status
from rag.types import Message

Dialect = Literal["messages", "lmi", "tgi"]

_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
_MAX_LINE_BYTES = 4 * 2**20


def request_body(
    dialect: Dialect, prompt: Prompt, *, model: str | None, streams: bool
) -> dict[str, Any]:
    """The body of one request. The two `inputs` schemas take a text: the turns, each after its
    speaker's name, for they say nothing of the model's chat template.
    """
    if dialect == "messages":
        body: dict[str, Any] = {
            "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "stream": streams,
        }
        return body | ({"model": model} if model else {})
    parameters: dict[str, Any] = {"max_new_tokens": prompt.max_tokens}
    if prompt.temperature > 0:
        parameters |= {"do_sample": True, "temperature": prompt.temperature}
    else:
        parameters |= {"do_sample": False}
    if dialect == "tgi":
        parameters |= {"details": True, "return_full_text": False}
    return {"inputs": transcript(prompt.messages), "parameters": parameters, "stream": streams}


def transcript(messages: Sequence[Message]) -> str:
    """The turns as one text that ends where the assistant is to speak."""
    turns = [f"{_SPEAKERS.get(m.role, m.role)}: {m.content}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"])


def read_frame(dialect: Dialect, line: str) -> Chunk | None:
    """What one line of a stream adds; None at OpenAI's end mark, and for lines that say nothing.

    Lines of server-sent events and bare JSON lines are both read: which comes is the container's
    setting.
    """
    line = line.strip()
    if not line or line.startswith((":", "event:", "id:", "retry:")):
        return None
    data = line.removeprefix("data:").strip()
    if not data or data == "[DONE]":
        return None
    return read_chunk(data) if dialect == "messages" else _read_token(_object(data))


def read_whole(dialect: Dialect, body: str) -> Chunk:
    """A reply that was not streamed."""
    if dialect == "messages":
        return read_completion(body)
    value = _value(body)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        raise _malformed("a reply that is not an object")
    _refuse_error(value)
    text = value.get("generated_text")
    if not isinstance(text, str):
        raise _malformed("a reply without generated_text")
    reason, usage = _details(value)
    return Chunk(text, reason or "stop", usage)


class Lines:
    """Bytes in parts, cut anywhere, put together to lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> Iterator[str]:
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            raise _malformed(f"a line of over {_MAX_LINE_BYTES} bytes")
        for line in lines:
            yield line.decode("utf-8", "replace")

    def flush(self) -> str:
        """What is left at the end: a last line without its line break."""
        rest, self._rest = self._rest, b""
        return rest.decode("utf-8", "replace")


def _read_token(frame: Mapping[str, Any]) -> Chunk:
    """One frame of LMI or TGI: a token, and in the last one `details`."""
    _refuse_error(frame)
    token = frame.get("token")
    if token is None:
        token = {}
    if not isinstance(token, dict):
        raise _malformed("a token that is not an object")
    text = token.get("text") or ""
    if not isinstance(text, str):
        raise _malformed("a token that is not text")
    reason, usage = _details(frame)
    if not token and reason is None and "generated_text" not in frame:
        raise _malformed("a frame without a token")
    if reason is None and frame.get("generated_text") is not None:
        reason = "stop"
    return Chunk("" if token.get("special") else text, reason, usage)


def _details(frame: Mapping[str, Any]) -> tuple[FinishReason | None, Usage | None]:
    details = frame.get("details")
    if not isinstance(details, dict):
        return None, None
    said = details.get("finish_reason")
    if said == "error":
        raise failure_of_status(500, "the model ended with an error")
    count = details.get("generated_tokens")
    usage = Usage(None, count) if isinstance(count, int) else None
    if said is None:
        return None, usage
    return ("length" if said == "length" else "stop"), usage


def _refuse_error(frame: Mapping[str, Any]) -> None:
    error = frame.get("error")
    if not error:
        return
    said = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    kind = str(frame.get("error_type") or "")
    if "overloaded" in kind:
        raise failure_of_status(429, said)
    if kind == "validation":
        raise failure_of_status(422, said)
    code = frame.get("code")
    raise failure_of_status(code if isinstance(code, int) and code >= 400 else 500, said)


def _object(data: str) -> dict[str, Any]:
    value = _value(data)
    if not isinstance(value, dict):
        raise _malformed("a frame that is not an object")
    return value


def _value(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed("a frame that is not JSON") from error


def _malformed(what: str) -> GeneratorFailure:
    return GeneratorProtocolError(
        f"generator endpoint sent {what}: check RAG_GENERATOR_DIALECT against its container"
    )
