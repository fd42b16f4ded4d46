"""N records in, N lines out."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import InvalidRequest, PayloadTooLarge
from rag.service.json_lines import answer_all, records


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"")), max_size=20))
def test_every_line_that_is_not_blank_is_a_record(lines: list[bytes]) -> None:
    expected = [line.strip() for line in lines if line.strip()]
    for body in (b"\n".join(lines), b"\n".join(lines) + b"\n", b"\r\n".join(lines)):
        if not expected:
            with pytest.raises(InvalidRequest):
                records(body, 100)
        else:
            assert [record.strip() for record in records(body, 100)] == expected


def test_too_many_lines() -> None:
    assert len(records(b"a\n" * 3, 3)) == 3
    with pytest.raises(PayloadTooLarge, match="more than 3"):
        records(b"a\n" * 4, 3)


def test_blank_megabytes_cost_nothing() -> None:
    assert records(b"\n" * (25 << 20) + b"a", 10) == [b"a"]


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
    reply = asyncio.run(answer_all(lines, answer, concurrency=concurrency))
    assert reply.splitlines() == [b"%d:%d" % (n + 1, n) for n in range(20)]
    assert reply.endswith(b"\n")
    assert peak == min(concurrency, 20)
