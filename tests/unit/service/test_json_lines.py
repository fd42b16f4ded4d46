"""N records in, N lines out."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import InvalidRequest, PayloadTooLarge
from rag.service.json_lines import WINDOW, records, replies, spool


def read(body: bytes, most: int | None = 100, size: int = 3) -> list[bytes]:
    """The records of a body that arrives in parts of `size` bytes."""

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, max(1, len(body)), size):
            yield body[start : start + size]

    file = io.BytesIO()
    asyncio.run(spool(parts(), file, most))
    return list(records(file, 1 << 20))


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"")), max_size=20))
def test_every_line_that_is_not_blank_is_a_record(lines: list[bytes]) -> None:
    expected = [line.strip() for line in lines if line.strip()]
    for body in (b"\n".join(lines), b"\n".join(lines) + b"\n", b"\r\n".join(lines)):
        if not expected:
            with pytest.raises(InvalidRequest):
                read(body)
        else:
            assert read(body) == expected


def test_too_many_lines() -> None:
    assert len(read(b"a\n" * 3, 3)) == len(read(b"a\na\na", 3)) == 3
    assert len(read(b"a\n" * 4, None)) == 4
    for body in (b"a\n" * 4, b"a\na\na\na", b"\n" * 4):
        with pytest.raises(PayloadTooLarge, match="more than 3"):
            read(body, 3)


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole() -> None:
    for last in (b"ok", b"ok\n"):
        body = io.BytesIO(b"x" * 100 + b"\n" + last)
        assert list(records(body, 10)) == [b"x" * 11, b"ok"]


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_order_is_kept_and_concurrency_bounded(concurrency: int) -> None:
    running = peak = 0

    async def answer(line: bytes, number: int) -> bytes:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(random.random() / 200)
        running -= 1
        return b"%d:%s" % (number, line)

    lines = [b"%d" % n for n in range(20)]

    async def everything() -> list[bytes]:
        return [reply async for reply in replies(iter(lines), answer, concurrency=concurrency)]

    assert asyncio.run(everything()) == [b"%d:%d\n" % (n + 1, n) for n in range(20)]
    assert peak == min(concurrency, 20)


def test_no_more_is_begun_than_a_window_ahead_of_the_reader() -> None:
    begun = 0

    async def answer(line: bytes, number: int) -> bytes:
        nonlocal begun
        begun += 1
        return line

    async def some() -> None:
        lines = iter([b"x"] * 1000)
        async with aclosing(replies(lines, answer, concurrency=2)) as made:
            for taken in range(1, 50):
                await anext(made)
                assert begun <= taken + WINDOW * 2

    asyncio.run(some())
    assert begun < 100
