"""JSON Lines: N records in, N lines out in the same order, a bad record being one error line."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice

from rag.errors import InvalidRequest, PayloadTooLarge

_RECORD = re.compile(rb"\S[^\n]*")  # from the first byte that is not white space to the line's end

Answer = Callable[[bytes, int], Awaitable[bytes]]
"""(one record, its number from 1) -> its reply, JSON on one line."""


def records(body: bytes, most: int) -> list[bytes]:
    """The lines of `body` that are not blank; a final line break is not needed.

    Raises InvalidRequest when there are none, PayloadTooLarge when there are more than `most`.
    """
    found = [match.group() for match in islice(_RECORD.finditer(body), most + 1)]
    if not found:
        raise InvalidRequest("body is empty; send one JSON object a line")
    if len(found) > most:
        raise PayloadTooLarge(f"body has more than {most} lines; split it")
    return found


async def answer_all(lines: list[bytes], answer: Answer, *, concurrency: int) -> bytes:
    """Every line's reply, in order, each ended by a line break; `concurrency` at once."""
    replies: list[bytes] = [b""] * len(lines)
    numbered: Iterator[tuple[int, bytes]] = iter(enumerate(lines))

    async def work() -> None:
        for place, line in numbered:
            replies[place] = await answer(line, place + 1)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(lines))):
            group.create_task(work())
    replies.append(b"")
    return b"\n".join(replies)
