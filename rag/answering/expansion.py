"""A question made into better queries by a generator, or left as it is when that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rag.answering.expansion_prompts import PROMPTS, ExpansionPrompt, Method
from rag.answering.expansion_replies import MAX_QUERY_CHARS, read_passage, read_queries
from rag.errors import GeneratorFailure, GeneratorTimeout
from rag.models.generator import Generator, Prompt
from rag.types import Message, Mode, Query

DEADLINE_SHARE = 0.3
"""Of the time left to the request, what expansion may spend; the rest searches and answers."""
MAX_REPLY_CHARS = 8000
"""What is read of a reply; the generator is stopped there."""


class SearchText(NamedTuple):
    """A text to search for. `is_passage`: it is written like a passage, not like a query."""

    text: str
    is_passage: bool = False


@dataclass(frozen=True, slots=True)
class Expanded:
    """What to search for, best first and never empty; `notes` say what did not work, one line
    each, beginning with the method's name.
    """

    searches: tuple[SearchText, ...]
    notes: tuple[str, ...] = ()

    def queries(self, query: Query, pool: int) -> list[Query]:
        """What to search for in place of `query`; where that is several, `pool` passages of each.

        A passage is compared with passages, so of both legs it asks the dense one alone.
        """
        if len(self.searches) == 1:
            return [replace(query, text=self.searches[0].text)]
        return [
            replace(
                query,
                text=search.text,
                top_k=pool,
                legs=Mode.DENSE if search.is_passage and query.legs is Mode.HYBRID else query.legs,
            )
            for search in self.searches
        ]


async def expand(
    query: str,
    history: Sequence[Message],
    *,
    method: Method,
    generator: Generator,
    deadline: float,
    share: float = DEADLINE_SHARE,
) -> Expanded:
    """The searches that `method` makes of `query`.

    `rewrite` gives one query in place of `query`, and asks nobody without `history`. `multi`,
    `decompose` (more queries) and `hyde` (a passage) always keep `query`, first. `deadline` is the
    request's `time.monotonic()` moment, of which at most `share` is spent. Whatever fails (the
    generator, the time, a reply that cannot be used) gives `query` alone and a note.
    """
    if method == "rewrite" and not history:
        return Expanded((SearchText(query),))
    try:
        if len(query) > MAX_QUERY_CHARS:
            raise _Unusable(f"the query is longer than {MAX_QUERY_CHARS} characters; shorten it")
        reply = await _ask(PROMPTS[method], query, history, generator, _until(deadline, share))
        return Expanded(_searches(PROMPTS[method], query, reply))
    except (GeneratorFailure, _Unusable) as failure:
        note = f"{method}: {failure}; searched for the query as it is"
        return Expanded((SearchText(query),), (note,))


class _Unusable(Exception):
    """There is nothing to expand a query with."""


def _searches(prompt: ExpansionPrompt, query: str, reply: str) -> tuple[SearchText, ...]:
    if prompt.name == "hyde":
        passage = read_passage(reply, query)
        if passage is not None:
            return SearchText(query), SearchText(passage, is_passage=True)
        raise _Unusable("the generator's reply holds no passage in the query's language")
    queries = read_queries(reply, query, prompt.max_queries)
    if queries is None:
        raise _Unusable("the generator's reply holds no query in the query's language")
    kept = [] if prompt.name == "rewrite" and queries else [query]
    return tuple(SearchText(text) for text in kept + queries)


def _until(deadline: float, share: float) -> float:
    now = time.monotonic()
    return now + share * max(0.0, deadline - now)


async def _ask(
    prompt: ExpansionPrompt,
    query: str,
    history: Sequence[Message],
    generator: Generator,
    until: float,
) -> str:
    """The generator's reply, as far as it is read; raises GeneratorFailure."""
    asked = Prompt(query, (), prompt.messages(query, history), max_tokens=prompt.max_tokens)
    stream = generator.stream(asked, deadline=until)
    parts: list[str] = []
    size = 0
    try:
        async with asyncio.timeout_at(until):  # for a generator that keeps no deadline
            async for delta in stream:
                parts.append(delta.text)
                size += len(delta.text)
                if size >= MAX_REPLY_CHARS:
                    break
    except TimeoutError:
        raise GeneratorTimeout(
            "the generator had not finished in its share of the deadline; raise deadline_ms"
        ) from None
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
    reply = "".join(parts)
    if size < MAX_REPLY_CHARS:
        return reply
    whole_lines = reply[:MAX_REPLY_CHARS].rpartition("\n")[0]
    return whole_lines or reply[:MAX_REPLY_CHARS]
