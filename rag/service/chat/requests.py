"""Chat completion requests as OpenAI's wire has them, made into this service's own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.errors import InvalidRequest
from rag.service.schemas import (
    BOM,
    FusionOptions,
    InvocationRequest,
    Limits,
    check_limits,
    explain,
)

# What is accepted with any value, because clients send it, and has no effect; the reply names it.
WITHOUT_EFFECT = (
    "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias",
    "service_tier", "store", "reasoning_effort", "verbosity", "parallel_tool_calls", "metadata",
)  # fmt: skip


MOST_TURNS = 64
"""Earlier turns that are read, the last ones."""


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Part(_Loose):
    """One part of a message; only text is read."""

    type: Literal["text"]
    text: str


class ChatMessage(_Loose):
    """One turn. Those of `system` and `developer` are not passed on: prompts are the service's."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Part, ...]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class StreamOptions(_Loose):
    include_usage: bool = Field(False, description="A last chunk with the count of tokens")


class ResponseFormat(_Loose):
    type: Literal["text"] = Field("text", description="Answers are text")


class Retrieval(_Strict):
    """What this service adds to the protocol, under `rag`; as in /invocations."""

    top_k: int = Field(5, ge=1, description="How many passages")
    filter: dict[str, Any] | None = Field(None, description="Which passages may answer")
    legs: Literal["hybrid", "dense", "sparse"] = "hybrid"
    fusion: FusionOptions | None = None
    rerank: bool = False
    min_score: float | None = Field(None, allow_inf_nan=False)
    query_expansion: Literal["none", "rewrite", "multi", "hyde", "decompose"] | None = Field(
        None,
        description="null: `rewrite` where there are earlier turns and the service has a chat"
        " generator, else `none`",
    )
    template: str | None = None
    unsupported: Literal["flag", "drop"] | None = None
    deadline_ms: int | None = Field(None, ge=1)
    passages: bool = Field(True, description="Whether the reply holds the passages")


class ChatRequest(_Loose):
    """A chat completion: the last message, the user's, is the question."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    model: str = Field(
        "", description="Any name; on a multi-model endpoint that of the bundle to ask"
    )
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    rag: Retrieval = Retrieval()  # type: ignore[call-arg]

    @property
    def ignored(self) -> list[str]:
        """What of the request had no effect."""
        given = self.model_extra or {}
        names = [name for name in WITHOUT_EFFECT if given.get(name) is not None]
        places = (
            f"messages.{i}"
            for i, message in enumerate(self.messages)
            if message.role in ("system", "developer")
        )
        return [*names, *places]


def parse_chat(body: bytes) -> ChatRequest:
    """The request as it came; raises InvalidRequest, one line."""
    body = body.removeprefix(BOM)
    if not body.strip():
        raise InvalidRequest('body is empty; send {"messages": [{"role": "user", …}]}')
    try:
        chat = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(explain(error, ChatRequest)) from None
    _refuse_unknown(chat)
    return chat


def own_request(chat: ChatRequest, limits: Limits, *, rewrites: bool) -> InvocationRequest:
    """The request as this service's own; `rewrites` says that there is a generator that can make a
    follow-up a stand-alone query. Raises InvalidRequest, one line.
    """
    turns = [m for m in chat.messages if m.role in ("user", "assistant")]
    if not turns or turns[-1].role != "user":
        raise InvalidRequest("the last message is not the user's; it is what is answered")
    request = _own(chat, turns, limits, rewrites=rewrites)
    check_limits(request, limits)
    return request


def _refuse_unknown(chat: ChatRequest) -> None:
    """Tools and the like would change what the reply is: they are refused, not passed over."""
    for name, value in (chat.model_extra or {}).items():
        if name not in WITHOUT_EFFECT and value not in (None, [], {}, False):
            raise InvalidRequest(f"'{name[:80]}' is not served here; leave it out")


def _own(
    chat: ChatRequest, turns: list[ChatMessage], limits: Limits, *, rewrites: bool
) -> InvocationRequest:
    """Earlier turns are cut where the service reads no further."""
    extra = chat.rag.model_dump(exclude={"passages", "fusion", "query_expansion"})
    options = {
        "max_tokens": chat.max_completion_tokens or chat.max_tokens,
        "temperature": chat.temperature,
    }
    expansion = chat.rag.query_expansion
    if expansion is None:
        expansion = "rewrite" if rewrites and len(turns) > 1 else "none"
    earlier = [
        {"role": turn.role, "content": turn.text[: limits.max_query_chars]}
        for turn in turns[:-1][-MOST_TURNS:]
    ]
    try:
        return InvocationRequest.model_validate(
            {
                **extra,
                "fusion": chat.rag.fusion,
                "query": turns[-1].text,
                "messages": tuple(earlier),
                "query_expansion": expansion,
                "stream": bool(chat.stream),
                "generation": {k: v for k, v in options.items() if v is not None},
                "on_generator_failure": "error",
            }
        )
    except ValidationError as error:
        raise InvalidRequest(explain(error, InvocationRequest)) from None
