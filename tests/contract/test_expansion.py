"""Query expansion through a chat endpoint that is not ours and says anything: no request breaks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.service.app import limits_of, options_of
from rag.service.engine import Call, Engine
from rag.service.engines import EngineMaker
from rag.service.invocations import whole_reply
from rag.service.metrics import Metrics
from rag.service.replies import InvocationReply
from rag.service.schemas import parse_request
from rag.settings import Settings

QUESTIONS = ("How do I rotate the keys?", "컨테이너는 어느 포트를 쓰나요?")
HISTORY = [
    {"role": "user", "content": "What is a bundle? 번들이란?"},
    {"role": "assistant", "content": "A sealed folder [1]."},
]


@pytest.fixture(scope="module")
def settings(sample_bundle: Path, chat_endpoint: Any) -> Settings:
    return Settings(
        bundle=str(sample_bundle), generator="openai", generator_url=chat_endpoint.url,
        generator_model=chat_endpoint.model,
    )  # type: ignore[call-arg]  # fmt: skip


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One event loop for the engine's whole life, as a service has it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(settings: Settings, loop: asyncio.Runner) -> Iterator[Engine]:
    maker = EngineMaker(options_of(settings), Metrics())
    made = maker.load(settings.bundle)
    yield made
    loop.run(made.close())
    loop.run(maker.close())


@pytest.mark.parametrize("query", QUESTIONS)
@pytest.mark.parametrize("method", ["rewrite", "multi", "hyde", "decompose"])
def test_whatever_the_model_says_the_passages_come(
    settings: Settings, engine: Engine, loop: asyncio.Runner, method: str, query: str
) -> None:
    fields = {
        "query": query, "mode": "retrieve", "messages": HISTORY, "query_expansion": method,
        "deadline_ms": 50_000,
    }  # fmt: skip
    request = parse_request(json.dumps(fields).encode(), limits_of(settings))
    now = time.monotonic()
    reply = loop.run(whole_reply(engine, Call(request, "r", now, now + 50.0)))
    InvocationReply.model_validate(reply)
    assert [passage["rank"] for passage in reply["passages"]] == [1, 2, 3, 4, 5]
    assert ("queries" in reply) != bool(reply["degraded"])
    for note in reply["degraded"]:
        assert note.startswith(f"{method}: ")
        assert "refused" not in note
