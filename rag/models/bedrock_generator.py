"""A generator on Amazon Bedrock, through Converse and ConverseStream: any of its chat models."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Any
from urllib.parse import quote

import httpx2

from rag.errors import GeneratorProtocolError
from rag.models.generator import Delta, FinishReason, Prompt
from rag.models.wire.aws import EVENT_STREAM, AwsRuntime, failure_of_response, read_events
from rag.models.wire.chunks import Chunk, Usage
from rag.models.wire.endpoint import Endpoint, json_bytes, media_type, read_body, within
from rag.types import Message

_REASONS: Mapping[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}


class BedrockGenerator:
    """Asks one model, named by its id, inference profile or ARN.

    `streams` chooses ConverseStream (True) or Converse. `extra` is merged into each request's
    body, such as a guardrail. For `region` and `endpoint_url` see `AwsRuntime`, for the rest
    `Endpoint`. The caller needs bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream.
    """

    def __init__(
        self,
        model: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        streams: bool = True,
        extra: Mapping[str, Any] | None = None,
        timeout_connect_s: float = 5.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._model = model
        self._streams = streams
        self._extra = dict(extra or {})
        self._runtime = AwsRuntime("bedrock-runtime", region=region, endpoint_url=endpoint_url)
        operation = "converse-stream" if streams else "converse"
        path = f"/model/{quote(model, safe='')}/{operation}"
        self._url = self._runtime.url.join(path)
        self._endpoint = Endpoint(timeout_connect_s=timeout_connect_s, client=client)

    @property
    def name(self) -> str:
        return self._model

    async def aclose(self) -> None:
        """Closes the connections, unless the client came from outside."""
        await self._endpoint.aclose()

    def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """Yields the model's text as it arrives, and how it ended. Raises as every generator."""
        body = json_bytes(_body(prompt) | self._extra)
        headers = {
            "Content-Type": "application/json",
            "Accept": EVENT_STREAM if self._streams else "application/json",
        }
        return self._runtime.answer(
            self._endpoint, self._url, body, headers, self._read, deadline=deadline
        )

    async def _read(
        self, response: httpx2.Response, deadline: float
    ) -> AsyncGenerator[Chunk, None]:
        if response.status_code != 200:
            raise self._endpoint.masked(await failure_of_response(response, deadline))
        expected = EVENT_STREAM if self._streams else "application/json"
        if media_type(response) != expected:
            raise GeneratorProtocolError(
                f"generator endpoint answered with content type {media_type(response)[:80]!r}: "
                f"expected {expected}; check that the address is Bedrock's runtime"
            )
        if not self._streams:
            yield _whole(_object(await within(deadline, read_body(response))))
            return
        reason: FinishReason | None = None
        usage: Usage | None = None
        async with aclosing(read_events(response, deadline)) as events:
            async for event in events:
                fields = _object(event.payload)
                if event.kind == "contentBlockDelta":
                    if text := _text(fields.get("delta")):
                        yield Chunk(text)
                elif event.kind == "messageStop":
                    reason = _reason(fields)
                elif event.kind == "metadata":
                    usage = _usage(fields)
        if reason is None:
            raise GeneratorProtocolError(
                "generator endpoint ended its stream without messageStop: the answer may be cut"
                " short; ask again"
            )
        yield Chunk("", reason, usage)


def _body(prompt: Prompt) -> dict[str, Any]:
    """Converse wants system text apart, and turns that alternate."""
    system = [{"text": m.content} for m in prompt.messages if m.role == "system"]
    turns = [m for m in prompt.messages if m.role != "system"]
    body: dict[str, Any] = {
        "messages": _turns(turns),
        "inferenceConfig": {"maxTokens": prompt.max_tokens, "temperature": prompt.temperature},
    }
    return body | ({"system": system} if system else {})


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": [{"text": message.content} for message in same]}
        for role, same in groupby(messages, key=lambda message: message.role)
    ]


def _whole(reply: Mapping[str, Any]) -> Chunk:
    output = reply.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        raise _malformed("a reply without output.message.content")
    text = "".join(_text(block) for block in content)
    return Chunk(text, _reason(reply), _usage(reply))


def _text(block: object) -> str:
    """The text of a content block or delta; reasoning and tool use have none."""
    if not isinstance(block, dict):
        raise _malformed("content that is not an object")
    text = block.get("text")
    if text is not None and not isinstance(text, str):
        raise _malformed("content that is not text")
    return text or ""


def _reason(fields: Mapping[str, Any]) -> FinishReason:
    return _REASONS.get(str(fields.get("stopReason")), "stop")


def _usage(fields: Mapping[str, Any]) -> Usage | None:
    usage = fields.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = (usage.get("inputTokens"), usage.get("outputTokens"))
    return Usage(*(count if isinstance(count, int) else None for count in counts))


def _object(data: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed("a message that is not JSON") from error
    if not isinstance(value, dict):
        raise _malformed("a message that is not an object")
    return value


def _malformed(what: str) -> GeneratorProtocolError:
    return GeneratorProtocolError(
        f"generator endpoint sent {what}: check that the address is Bedrock's runtime"
    )
