"""Any LangChain chat model as a generator."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import httpx2
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from rag.errors import (
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
)
from rag.models.generator import Delta, Prompt
from rag.types import Message

_MARGIN_S = 0.05  # left to the caller to say, before its own deadline, that there was no answer
_KINDS: Mapping[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}

Options = Callable[[Prompt], Mapping[str, Any]]


def standard_options(prompt: Prompt) -> Mapping[str, Any]:
    """LangChain's standard names for the two limits of a prompt."""
    return {"max_tokens": prompt.max_tokens, "temperature": prompt.temperature}


class LangChainGenerator:
    """Streams from `model`, which stays the caller's: `aclose` does not close it.

    `name` is the model's own if it is not given. `options` are the arguments of one call; pass
    another function for a model that names them otherwise, such as
    `lambda prompt: {"max_output_tokens": prompt.max_tokens}`.
    """

    def __init__(
        self,
        model: BaseChatModel,
        *,
        name: str | None = None,
        options: Options = standard_options,
    ) -> None:
        self._model = model
        self._name = name or _name_of(model)
        self._options = options

    @property
    def name(self) -> str:
        return self._name

    async def aclose(self) -> None:
        """Nothing: the model's connections are the model's."""

    async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """Yields the text of the model's message as it arrives; never an empty piece.

        Raises GeneratorTimeout (shortly before `deadline`), GeneratorUnavailable (no connection,
        5xx), GeneratorThrottled (429), GeneratorProtocolError (an answer that LangChain cannot
        read), and GeneratorFailure for all else, no text among it. The library's error is the
        cause.
        """
        has_text = False
        pieces = self._model.astream(to_langchain(prompt.messages), **self._options(prompt))
        async with aclosing(pieces):  # type: ignore[type-var]  # a generator, typed as iterator
            while (piece := await self._next(pieces, deadline)) is not None:
                text = str(piece.text)
                if text:
                    has_text = True
                    yield Delta(text)
        if not has_text:
            raise GeneratorFailure(
                f"chat model {self._name} finished without any text: raise max_tokens or check it"
            )

    async def _next(
        self, pieces: AsyncIterator[BaseMessage], deadline: float
    ) -> BaseMessage | None:
        """The next piece, None after the last."""
        remaining = deadline - _MARGIN_S - time.monotonic()
        try:
            if remaining <= 0:  # work that never waits would slip past a timer
                raise TimeoutError
            async with asyncio.timeout(remaining) as limit:
                return await anext(pieces, None)
        except Exception as error:
            if remaining <= 0 or limit.expired():
                raise GeneratorTimeout(
                    f"chat model {self._name} had not finished at the deadline: raise the"
                    " deadline, lower max_tokens, or add capacity"
                ) from None
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> GeneratorFailure:
        kind = _kind_of(error)
        said = _masked(" ".join(f"{type(error).__name__}: {error}".split()))
        return kind(
            f"chat model {self._name} failed: check the model and its endpoint ({said[:300]})"
        )


def to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    """The same turns as LangChain's messages; raises GeneratorFailure for a role unlike 'system',
    'user' or 'assistant'.
    """
    turns: list[BaseMessage] = []
    for message in messages:
        if message.role not in _KINDS:
            raise GeneratorFailure(
                f"message role is {message.role!r}; use 'system', 'user' or 'assistant'"
            )
        turns.append(_KINDS[message.role](content=message.content))
    return turns


def _name_of(model: BaseChatModel) -> str:
    for attribute in ("model_name", "model", "model_id"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(model).__name__


def _kind_of(error: Exception) -> type[GeneratorFailure]:
    """By the HTTP status that the library tells, else by the nature of the error or its causes."""
    status = next(filter(None, map(_status_of, _causes(error))), 0)
    if status == 429:
        return GeneratorThrottled
    if status:
        return GeneratorUnavailable if status >= 500 else GeneratorFailure
    for cause in _causes(error):
        if isinstance(cause, TimeoutError | httpx.TimeoutException | httpx2.TimeoutException):
            return GeneratorTimeout
        if isinstance(cause, OSError | httpx.TransportError | httpx2.TransportError):
            return GeneratorUnavailable
        if isinstance(cause, OutputParserException):
            return GeneratorProtocolError
    return GeneratorFailure


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _status_of(error: BaseException) -> int:
    """The HTTP status where clients keep it: on the error, on its response, or botocore's way."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else 0


def _masked(text: str) -> str:
    return re.sub(r"(?i)\b(bearer\s+|sk-)[\w.*~+/-]+", r"\1***", text)
