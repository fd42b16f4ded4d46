"""What the frames of an answer add, whatever protocol they come in, and the deltas of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from rag.errors import GeneratorFailure
from rag.models.generator import Delta, Finish, FinishReason


class Usage(NamedTuple):
    """Tokens as the endpoint counted them; None where it does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(NamedTuple):
    """What one frame adds: text, the finish reason if it carries it, and the usage likewise."""

    text: str
    reason: FinishReason | None = None
    usage: Usage | None = None


async def deltas(chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Delta, None]:
    """The text as it arrives, then how it ended; GeneratorFailure where there was no text."""
    has_text = False
    reason: FinishReason = "stop"
    usage = Usage()
    async for chunk in chunks:
        reason, usage = chunk.reason or reason, chunk.usage or usage
        if chunk.text:
            has_text = True
            yield Delta(chunk.text)
    if not has_text:
        raise GeneratorFailure(
            "generator endpoint finished without any text: raise max_tokens or check the model"
        )
    yield Delta("", Finish(reason, *usage))
