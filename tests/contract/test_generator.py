"""What every generator keeps to, run over each of them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import anyio
import httpx2
import pytest

from rag.errors import GeneratorFailure, GeneratorTimeout
from rag.models.bedrock_generator import BedrockGenerator
from rag.models.extractive import ExtractiveGenerator
from rag.models.generator import Delta, Generator, Prompt
from rag.models.langchain_generator import LangChainGenerator
from rag.models.load_generator import GeneratorSpec, load_generator
from rag.models.openai_generator import OpenAIGenerator
from rag.models.sagemaker_generator import SageMakerGenerator
from rag.types import Chunk, Message, Passage


def words(text: str) -> list[str]:
    return [w.lower() for w in re.findall(r"[^\W_]+", text)]


def passage(rank: int, text: str) -> Passage:
    return Passage(rank, f"{rank:032x}", Chunk("d", "u", "Pumps", text, 0, len(text)), 1.0)


PASSAGES = [
    passage(1, "The pump stops at 40 °C. The pump starts again after ten minutes. It is green."),
    passage(2, "펌프는 40도에서 멈춥니다. 펌프는 십 분 뒤에 다시 켜집니다."),
]


def prompt(query: str, max_tokens: int = 24) -> Prompt:
    return Prompt(query, PASSAGES, [Message("user", query)], max_tokens=max_tokens)


QUESTIONS = ["When does the pump stop and start?", "펌프는 언제 멈춥니까?"]


@dataclass(frozen=True)
class Case:
    make: Callable[[], Generator]
    is_endpoint: bool


CHAT = ("openai", "langchain", "resilient")
ON_AWS = ("sagemaker-messages", "sagemaker-lmi", "sagemaker-tgi", "bedrock")
ENDPOINTS = (*CHAT, *ON_AWS)


def of_endpoint(kind: str, request: pytest.FixtureRequest) -> Case:
    if kind in ON_AWS:
        url = request.getfixturevalue("aws_runtime").url
        if kind == "bedrock":
            return Case(lambda: BedrockGenerator("a.model-v1:0", endpoint_url=url), True)
        dialect: Any = kind.removeprefix("sagemaker-")
        return Case(
            lambda: SageMakerGenerator("my-endpoint", dialect=dialect, endpoint_url=url), True
        )
    chat = request.getfixturevalue("chat_endpoint")
    if kind == "openai":
        return Case(lambda: OpenAIGenerator(chat.url, chat.model), True)
    if kind == "resilient":
        spec = GeneratorSpec("openai", url=chat.url, model=chat.model)
        return Case(lambda: load_generator(spec), True)
    openai = pytest.importorskip("langchain_openai", reason="install rag-containers[dev]")

    def make() -> Generator:
        model = openai.ChatOpenAI(
            base_url=f"{chat.url}/v1",
            api_key="sk-very-secret",
            model=chat.model,
            http_async_client=httpx2.AsyncClient(trust_env=False),
        )
        return LangChainGenerator(model, options=server_options)

    return Case(make, True)


def server_options(prompt: Prompt) -> dict[str, Any]:
    """ChatOpenAI would rename max_tokens to what this server does not know."""
    return {"temperature": prompt.temperature, "extra_body": {"max_tokens": prompt.max_tokens}}


@pytest.fixture(params=ENDPOINTS)
def endpoint(request: pytest.FixtureRequest) -> Case:
    return of_endpoint(request.param, request)


@pytest.fixture(params=["extractive", *ENDPOINTS])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "extractive":
        return Case(lambda: ExtractiveGenerator(words), False)
    return of_endpoint(request.param, request)


async def collect(stream: AsyncIterator[Delta]) -> list[str]:
    return [delta.text async for delta in stream if delta.finish is None]


def soon(seconds: float = 120) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize("query", QUESTIONS)
def test_it_streams_pieces_of_text(case: Case, query: str) -> None:
    async def ask() -> list[str]:
        generator = case.make()
        pieces = await collect(generator.stream(prompt(query), deadline=soon()))
        await generator.aclose()
        return pieces

    pieces = anyio.run(ask)
    assert pieces
    assert all(isinstance(piece, str) and piece for piece in pieces)
    if case.is_endpoint:
        assert len(pieces) > 3


def test_it_is_named(case: Case) -> None:
    assert case.make().name


def test_the_same_prompt_gives_the_same_answer(case: Case) -> None:
    async def ask() -> list[str]:
        generator = case.make()
        answers = [
            "".join(await collect(generator.stream(prompt(QUESTIONS[0]), deadline=soon())))
            for _ in range(2)
        ]
        await generator.aclose()
        return answers

    one, two = anyio.run(ask)
    assert one == two


def test_concurrent_streams_do_not_mix(case: Case) -> None:
    async def ask() -> tuple[list[str], list[str]]:
        generator = case.make()

        async def answer(query: str) -> str:
            return "".join(await collect(generator.stream(prompt(query), deadline=soon())))

        alone = [await answer(query) for query in QUESTIONS]
        together = await asyncio.gather(*(answer(query) for query in QUESTIONS * 3))
        await generator.aclose()
        return alone, together

    alone, together = anyio.run(ask)
    assert together == alone * 3
    assert alone[0] != alone[1]


def test_a_deadline_in_the_past_is_a_timeout(case: Case) -> None:
    async def ask() -> None:
        generator = case.make()
        try:
            await collect(generator.stream(prompt(QUESTIONS[0]), deadline=time.monotonic() - 1))
        finally:
            await generator.aclose()

    with pytest.raises(GeneratorTimeout):
        anyio.run(ask)


def test_it_can_be_closed_in_the_middle_and_asked_again(case: Case) -> None:
    async def ask() -> list[str]:
        generator = case.make()
        for _ in range(3):
            stream: Any = generator.stream(prompt(QUESTIONS[0], 4000), deadline=soon())
            first = await anext(stream)
            assert first.text
            await stream.aclose()
            assert await collect(stream) == []
        pieces = await collect(generator.stream(prompt(QUESTIONS[0]), deadline=soon()))
        await generator.aclose()
        return pieces

    assert anyio.run(ask)


def test_a_stream_that_is_never_begun_costs_nothing(case: Case) -> None:
    async def ask() -> None:
        generator = case.make()
        stream: Any = generator.stream(prompt(QUESTIONS[0]), deadline=soon())
        await stream.aclose()
        await generator.aclose()

    anyio.run(ask)


def test_an_endpoint_is_cut_off_at_the_deadline_and_what_came_is_kept(endpoint: Case) -> None:
    async def ask() -> list[str]:
        generator = endpoint.make()
        await collect(generator.stream(prompt(QUESTIONS[0], 1), deadline=soon()))  # warm
        received: list[str] = []

        async def read() -> None:
            stream = generator.stream(prompt(QUESTIONS[0], 15000), deadline=soon(3))
            async for delta in stream:
                received.append(delta.text)

        with pytest.raises(GeneratorTimeout):
            await read()
        await generator.aclose()
        return received

    assert anyio.run(ask)


def test_an_endpoint_reads_the_messages_and_keeps_to_max_tokens(endpoint: Case) -> None:
    async def ask() -> tuple[str, str, str]:
        generator = endpoint.make()
        one = prompt("물은 언제 끓나요?", 5)
        other = replace(one, messages=[Message("user", QUESTIONS[0])])
        answers = [
            "".join(await collect(generator.stream(p, deadline=soon())))
            for p in (one, other, replace(one, max_tokens=9))
        ]
        await generator.aclose()
        return answers[0], answers[1], answers[2]

    one, other, longer = anyio.run(ask)
    assert len(one) == 5  # the model speaks one letter a token
    assert longer.startswith(one)
    assert len(longer) == 9
    assert other != one


def test_what_the_endpoint_refuses_is_a_generator_failure(endpoint: Case) -> None:
    async def ask() -> None:
        generator = endpoint.make()
        bad = replace(prompt("q"), messages=[])
        try:
            await collect(generator.stream(bad, deadline=soon()))
        finally:
            await generator.aclose()

    with pytest.raises(GeneratorFailure, match="endpoint"):
        anyio.run(ask)


def sdk(runtime: Any, service: str) -> Any:
    boto3 = pytest.importorskip("boto3", reason="install rag-containers[dev]")
    return boto3.client(service, endpoint_url=runtime.url)


def test_the_fake_runtime_speaks_as_the_sdk_expects(aws_runtime: Any) -> None:
    """The SDK of AWS reads the fake's framing and hears what our generators hear."""
    turns = [{"role": "user", "content": [{"text": QUESTIONS[0]}]}]
    converse = {
        "modelId": "a.model-v1:0",
        "messages": turns,
        "inferenceConfig": {"maxTokens": 24, "temperature": 0.0},
    }
    client = sdk(aws_runtime, "bedrock-runtime")
    events = list(client.converse_stream(**converse)["stream"])
    said = "".join(
        e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e
    )
    whole = client.converse(**converse)["output"]["message"]["content"][0]["text"]
    chat = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 24}
    reply = sdk(aws_runtime, "sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName="my-endpoint", Body=json.dumps(chat | {"temperature": 0.0})
    )
    parts = b"".join(part["PayloadPart"]["Bytes"] for part in reply["Body"])
    frames = [json.loads(line[6:]) for line in parts.splitlines() if line]
    heard = "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames)

    async def ask(generator: Generator) -> str:
        pieces = await collect(generator.stream(prompt(QUESTIONS[0]), deadline=soon()))
        await generator.aclose()
        return "".join(pieces)

    url = aws_runtime.url
    ours = anyio.run(ask, BedrockGenerator("a.model-v1:0", endpoint_url=url))
    assert said == whole == ours
    assert heard == anyio.run(ask, SageMakerGenerator("my-endpoint", endpoint_url=url))
    assert len(said) == len(heard) == 24


def test_whole_replies_say_what_streams_say(aws_runtime: Any) -> None:
    url = aws_runtime.url

    async def both(dialect: Any) -> tuple[str, str]:
        said = []
        for streams in (True, False):
            if dialect == "bedrock":
                made: Generator = BedrockGenerator(
                    "a.model-v1:0", endpoint_url=url, streams=streams
                )
            else:
                made = SageMakerGenerator(
                    "my-endpoint", dialect=dialect, endpoint_url=url, streams=streams
                )
            said.append("".join(await collect(made.stream(prompt(QUESTIONS[0]), deadline=soon()))))
            await made.aclose()
        return said[0], said[1]

    for dialect in ("messages", "lmi", "tgi", "bedrock"):
        streamed, whole = anyio.run(both, dialect)
        assert streamed == whole
        assert len(whole) == 24


def test_a_request_signed_with_another_key_is_refused(
    aws_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")

    async def ask() -> None:
        made = BedrockGenerator("a.model-v1:0", endpoint_url=aws_runtime.url)
        await collect(made.stream(prompt("q"), deadline=soon()))

    with pytest.raises(GeneratorFailure, match=r"403.*signature differs"):
        anyio.run(ask)
