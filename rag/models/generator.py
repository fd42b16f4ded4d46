"""What a generator is, whatever endpoint or library speaks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from rag.types import Message, Passage


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything a generator needs for one answer.

    `messages` is the rendered prompt, as chat turns (roles 'system', 'user', 'assistant').
    `query` and `passages` are the same in parts, for generators that do not read prompts. A
    citation is written `[n]`, where n is the rank of a passage.
    """

    query: str
    passages: Sequence[Passage]
    messages: Sequence[Message]
    max_tokens: int = 512
    temperature: float = 0.0


FinishReason = Literal["stop", "length", "content_filter"]


class Finish(NamedTuple):
    """How an answer ended: by itself, at `max_tokens`, or by the endpoint's filter. Tokens are as
    the endpoint counted them, None where it does not say.
    """

    reason: FinishReason = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Delta(NamedTuple):
    """The next piece of the answer's text. The last may say how the answer ended; only then may
    its text be empty.
    """

    text: str
    finish: Finish | None = None


class Generator(Protocol):
    """Streams an answer.

    `name` identifies the model in replies and metrics. `deadline` is a `time.monotonic()` moment;
    past it GeneratorTimeout is raised. Any failure is a GeneratorFailure; closing the iterator
    stops the work at the endpoint. `aclose` frees connections; a closed generator is not used.
    """

    @property
    def name(self) -> str: ...

    def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]: ...

    async def aclose(self) -> None: ...
