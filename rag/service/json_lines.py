"""JSON Lines: N records in, N lines out in the same order, a bad record being one error line.

Bodies lie on disk and replies leave as they are made: memory holds a window of them, however
long a job is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import IO

from rag.errors import InvalidRequest, PayloadTooLarge

Answer = Callable[[bytes, int], Awaitable[bytes]]
"""(one record, its number from 1) -> its reply, JSON on one line."""

WINDOW = 4
"""Replies that may wait for an earlier one, for each record that is worked on."""


async def spool(parts: AsyncIterator[bytes], into: IO[bytes], most: int | None) -> None:
    """Writes a body into a file, which is then at its start.

    Raises InvalidRequest where there are no records in it, PayloadTooLarge as soon as there are
    more than `most` lines.
    """
    breaks, blank, last = 0, True, b""
    async for part in parts:
        into.write(part)
        breaks += part.count(b"\n")
        blank = blank and not part.strip()
        last = part or last
        if most is not None and breaks + (not last.endswith(b"\n")) > most:
            raise PayloadTooLarge(f"body has more than {most} lines; split it")
    if blank:
        raise InvalidRequest("body is empty; send one JSON object a line")
    into.seek(0)


def records(body: IO[bytes], most_bytes: int) -> Iterator[bytes]:
    """The lines of `body` that are not blank; a final line break is not needed.

    A line of more than `most_bytes` comes as its first bytes, one more than that.
    """
    while line := body.readline(most_bytes + 1):
        rest = line
        while len(rest) > most_bytes and not rest.endswith(b"\n"):
            rest = body.readline(most_bytes + 1)
        if line.strip():
            yield line.strip()


async def replies(
    lines: Iterator[bytes], answer: Answer, *, concurrency: int
) -> AsyncGenerator[bytes, None]:
    """Every line's reply, in order, each ended by a line break; `concurrency` are worked on at
    once, and no more are begun than WINDOW times that many before the one that is taken.
    """
    room = asyncio.Semaphore(concurrency)
    begun: deque[asyncio.Task[bytes]] = deque()

    async def work(line: bytes, number: int) -> bytes:
        async with room:
            return await answer(line, number) + b"\n"

    try:
        for number, line in enumerate(lines, start=1):
            begun.append(asyncio.create_task(work(line, number)))
            if len(begun) >= WINDOW * concurrency:
                yield await begun.popleft()
        while begun:
            yield await begun.popleft()
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
