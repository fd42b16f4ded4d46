"""Many single requests to a chat endpoint, some at a time, and JSON out of what it says."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.vectors import Advance
from rag.errors import GeneratorFailure
from rag.models.generator import Prompt
from rag.models.openai_generator import OpenAIGenerator
from rag.types import Message

_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Which endpoint, and how it is asked. `timeout_s` is for one request."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 0.0
    max_tokens: int = 512
    concurrency: int = 4
    timeout_s: float = 120.0


def ask_all(
    requests: Sequence[Sequence[Message]], options: ChatOptions, stage: str, advance: Advance
) -> list[str | GeneratorFailure]:
    """The endpoint's text for each request, in order; a request that failed has its failure.

    Raises ConfigurationError for a URL that is none.
    """
    return asyncio.run(_ask_all(requests, options, stage, advance))


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, also inside one fenced block; None for anything else."""
    fenced = _FENCED.match(text.strip())
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def _ask_all(
    requests: Sequence[Sequence[Message]], options: ChatOptions, stage: str, advance: Advance
) -> list[str | GeneratorFailure]:
    generator = OpenAIGenerator(options.url, options.model, api_key=options.api_key)
    gate = asyncio.Semaphore(options.concurrency)

    async def one(messages: Sequence[Message]) -> str | GeneratorFailure:
        prompt = Prompt("", (), messages, options.max_tokens, options.temperature)
        async with gate:
            deadline = time.monotonic() + options.timeout_s
            try:
                parts = [d.text async for d in generator.stream(prompt, deadline=deadline)]
            except GeneratorFailure as failure:
                return failure
            finally:
                advance(stage, 1, len(requests))
        return "".join(parts)

    try:
        return list(await asyncio.gather(*map(one, requests)))
    finally:
        await generator.aclose()
