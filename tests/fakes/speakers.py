"""How a fake endpoint of each kind says an answer, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from event_stream import KIND, event

from rag.models.bedrock_generator import BedrockGenerator
from rag.models.generator import Generator
from rag.models.openai_generator import OpenAIGenerator
from rag.models.sagemaker_generator import SageMakerGenerator


@dataclass(frozen=True)
class Speaker:
    """`make(url)` is the generator that understands the rest: `text` says a piece, `finish` ends
    the answer at its longest, `garbage` is a frame without sense, `whole` a reply at once.
    """

    make: Callable[[str], Generator]
    kind: str
    text: Callable[[str], bytes]
    finish: bytes
    garbage: bytes
    make_whole: Callable[[str], Generator] | None = None
    whole: bytes = b""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _sse(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _chat(content: str | None, reason: str | None = None) -> dict[str, object]:
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _part(data: bytes) -> bytes:
    """One line in two parts: how the platform cuts them means nothing."""
    half = len(data) // 2
    return event("PayloadPart", data[:half]) + event("PayloadPart", data[half:])


def _sagemaker(dialect: str, *, streams: bool = True) -> Callable[[str], Generator]:
    return lambda url: SageMakerGenerator(
        "my-endpoint",
        dialect=dialect,
        endpoint_url=url,
        streams=streams,  # type: ignore[arg-type]
    )


def _token(text: str) -> dict[str, object]:
    return {"token": {"id": 5, "text": text, "logprob": -0.5}}


_USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
_WHOLE_CHAT = {"choices": [{"message": {"content": "물은 끓는다."}, "finish_reason": "length"}]}
_DETAILS = {"details": {"finish_reason": "length", "generated_tokens": 3}}

SPEAKERS = {
    "openai": Speaker(
        lambda url: OpenAIGenerator(url, "m"),
        "text/event-stream",
        lambda text: _sse(_chat(text)),
        _sse(_chat(None, "length") | _USAGE) + b"data: [DONE]\n\n",
        b"data: {nope\n\n",
        lambda url: OpenAIGenerator(url, "m"),
        _json(_WHOLE_CHAT | _USAGE),
    ),
    "sagemaker-messages": Speaker(
        _sagemaker("messages"),
        KIND,
        lambda text: _part(_sse(_chat(text))),
        _part(_sse(_chat(None, "length") | _USAGE) + b"data: [DONE]\n\n"),
        _part(b"data: {nope\n\n"),
        _sagemaker("messages", streams=False),
        _json(_WHOLE_CHAT | _USAGE),
    ),
    "sagemaker-lmi": Speaker(
        _sagemaker("lmi"),
        KIND,
        lambda text: _part(_json(_token(text)) + b"\n"),
        _part(_json(_token("") | {"generated_text": "all"} | _DETAILS)),  # no line break
        _part(b"[1]\n"),
        _sagemaker("lmi", streams=False),
        _json({"generated_text": "물은 끓는다."} | _DETAILS),
    ),
    "sagemaker-tgi": Speaker(
        _sagemaker("tgi"),
        KIND,
        lambda text: _part(b"data:" + _json(_token(text)) + b"\n\n"),
        _part(b"data:" + _json({"token": {"text": "</s>", "special": True}} | _DETAILS) + b"\n\n"),
        _part(b'data:{"token": {"text": 5}}\n\n'),
        _sagemaker("tgi", streams=False),
        _json([{"generated_text": "물은 끓는다."} | _DETAILS]),
    ),
    "bedrock": Speaker(
        lambda url: BedrockGenerator("a.model-v1:0", endpoint_url=url),
        KIND,
        lambda text: event("contentBlockDelta", {"delta": {"text": text}, "contentBlockIndex": 0}),
        event("contentBlockStop", {"contentBlockIndex": 0})
        + event("messageStop", {"stopReason": "max_tokens"})
        + event("metadata", {"usage": {"inputTokens": 7, "outputTokens": 3}}),
        event("contentBlockDelta", b"{nope"),
        lambda url: BedrockGenerator("a.model-v1:0", endpoint_url=url, streams=False),
        _json(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": "물은 끓는다."}]}},
                "stopReason": "max_tokens",
                "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10},
            }
        ),
    ),
}
