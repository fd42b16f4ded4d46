"""The retriever, the chains and the generator, as LangChain uses them."""

from __future__ import annotations

import asyncio
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
import uvicorn

pytest.importorskip("langchain_tests", reason="install rag-containers[dev] for LangChain's suite")

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests

from rag.answering.answer import Answerer, Finished
from rag.answering.support import Support
from rag.errors import (
    BundleMissing,
    ConfigurationError,
    DeadlineExceeded,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorThrottled,
    GeneratorTimeout,
    GeneratorUnavailable,
    InvalidFilter,
    InvalidRequest,
    NotReady,
)
from rag.langchain import (
    BundleSource,
    HybridRetriever,
    LangChainGenerator,
    conversational_chain,
    history_aware_retriever,
)
from rag.models.extractive import ExtractiveGenerator
from rag.models.generator import Prompt
from rag.retrieval.opening import Opened, open_retriever
from rag.service.encoding import EncoderStage
from rag.service.engine import Engine
from rag.service.metrics import Metrics
from rag.service.routes import create_app
from rag.service.schemas import Limits
from rag.service.state import Service
from rag.service.vector_cache import VectorCache
from rag.types import Message, Query

QUESTION = "How long does SageMaker wait between SIGTERM and SIGKILL?"
KOREAN = "SIGTERM 다음에 SIGKILL까지 얼마나 기다립니까?"


@pytest.fixture(scope="module")
def opened(sample_bundle: Path) -> Opened:
    return open_retriever(str(sample_bundle))


class Running:
    """A real service in a thread; `service` is not ready before an engine begins."""

    def __init__(self, opened: Opened | None) -> None:
        metrics, self.service = Metrics(), Service(Limits(), max_in_flight=64)
        metrics.watch(self.service)
        if opened is not None:
            self.service.begin(_engine(opened))
        app = create_app(self.service, metrics)
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
        )
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        await self._server.serve()
        if self.service.engine is not None:
            await self.service.engine.close()

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)


def _engine(opened: Opened) -> Engine:
    terms, embedder = opened.bundle.analyzer.words, opened.embedder
    generator = ExtractiveGenerator(terms, embedder.embed_passages, embedder.embed_queries)
    stage = EncoderStage(embedder, cache=VectorCache(0), batch_max_tokens=8192, max_waiting=256)
    return Engine(
        opened.retriever.searcher,
        stage,
        Answerer(generator, support=Support(terms)),
        version=opened.bundle.manifest.version,
        generator=generator,
        queue_max_items=256,
    )


@pytest.fixture(scope="module")
def url(opened: Opened) -> Iterator[str]:
    with Running(opened) as address:
        yield address


@pytest.fixture(params=["bundle", "url"])
def where(request: pytest.FixtureRequest, opened: Opened) -> dict[str, Any]:
    """Fields of a retriever of each kind."""
    if request.param == "bundle":
        return {"source": BundleSource(opened)}
    return {"url": request.getfixturevalue("url")}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Standard(RetrieversIntegrationTests):
    """LangChain's own suite; the kind of retriever is chosen below."""

    params: dict[str, Any]

    @property
    def retriever_constructor(self) -> type[HybridRetriever]:
        return HybridRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self.params

    @property
    def retriever_query_example(self) -> str:
        return QUESTION

    @property
    def num_results_arg_name(self) -> str:
        return "top_k"


@pytest.mark.anyio
class TestStandardOverABundle(Standard):
    @pytest.fixture(autouse=True)
    def _where(self, sample_bundle: Path) -> None:
        self.params = {"bundle": str(sample_bundle)}


@pytest.mark.anyio
class TestStandardOverAService(Standard):
    @pytest.fixture(autouse=True)
    def _where(self, url: str) -> None:
        self.params = {"url": url}


@pytest.mark.parametrize("question", [QUESTION, KOREAN])
def test_documents_say_where_they_are_from(
    where: dict[str, Any], opened: Opened, question: str
) -> None:
    documents = HybridRetriever(**where, top_k=4).invoke(question)
    assert len(documents) == 4
    for rank, document in enumerate(documents, 1):
        said = document.metadata
        assert document.id == said["chunk_id"]
        assert said["rank"] == rank
        assert said["index_version"] == opened.bundle.manifest.version
        assert said["uri"].endswith(said["doc_id"].rpartition("/")[2])
        assert said["title"]
        assert said["page"] is None or said["page"] >= 1
        assert {"dense", "sparse", "rerank"} == said["scores"].keys()
        assert len(document.page_content) == said["end"] - said["start"]
    scores = [document.metadata["score"] for document in documents]
    assert scores == sorted(scores, reverse=True)
    assert all(d.metadata["scores"]["sparse"]["rank"] >= 1 for d in documents[:1])


def test_bundle_and_service_give_equal_documents(opened: Opened, url: str) -> None:
    local = HybridRetriever(source=BundleSource(opened), top_k=10)
    remote = HybridRetriever(url=f"{url}/invocations", top_k=10)
    for question in (QUESTION, KOREAN, unicodedata.normalize("NFD", KOREAN)):
        for legs in ("hybrid", "dense", "sparse"):
            one, two = local.invoke(question, legs=legs), remote.invoke(question, legs=legs)
            assert [d.id for d in one] == [d.id for d in two]
            for a, b in zip(one, two, strict=True):
                assert a.page_content == b.page_content
                assert a.metadata.keys() == b.metadata.keys()
                assert a.metadata["score"] == pytest.approx(b.metadata["score"], abs=1e-4)
                floats = {"score", "scores"}
                assert {k: v for k, v in a.metadata.items() if k not in floats} == {
                    k: v for k, v in b.metadata.items() if k not in floats
                }


def test_what_a_document_says_of_itself_keeps_its_key(opened: Opened) -> None:
    from dataclasses import replace

    from rag.langchain.documents import document_of_passage

    found = opened.retriever.search([Query(QUESTION)])[0].passages[0]
    chunk = replace(found.chunk, metadata={"year": 2024, "tags": ("a", "나"), "score": 3})
    said = document_of_passage(found._replace(chunk=chunk), "v").metadata
    assert (said["year"], said["tags"], said["document.score"]) == (2024, ["a", "나"], 3)
    assert said["score"] == found.score


def test_fields_reach_the_search(where: dict[str, Any]) -> None:
    everything = HybridRetriever(**where, top_k=20).invoke(KOREAN)
    floor = everything[7].metadata["score"] - 1e-6
    cases: dict[str, Any] = {
        "min_score": floor,
        "filter": {"lang": {"$eq": "ko"}},
        "legs": "sparse",
    }
    for name, value in cases.items():
        told = HybridRetriever(**where, top_k=20, **{name: value}).invoke(KOREAN)
        once = HybridRetriever(**where, top_k=20).invoke(KOREAN, **{name: value})
        assert [d.id for d in told] == [d.id for d in once]
        assert [d.id for d in told] != [d.id for d in everything]
    assert len(HybridRetriever(**where, top_k=20, min_score=floor).invoke(KOREAN)) == 8
    only = HybridRetriever(**where, legs="sparse").invoke(KOREAN)
    assert all(d.metadata["scores"]["dense"] is None for d in only)
    by_rank = HybridRetriever(**where, top_k=20, fusion={"method": "rrf"}).invoke(KOREAN)
    assert [d.metadata["score"] for d in by_rank] != [d.metadata["score"] for d in everything]


def test_batch_async_and_streaming(where: dict[str, Any]) -> None:
    retriever = HybridRetriever(**where, top_k=3)
    questions = [QUESTION, KOREAN]
    alone = [retriever.invoke(question) for question in questions]

    async def ask() -> tuple[Any, Any, Any, Any]:
        together = await asyncio.gather(*(retriever.ainvoke(q) for q in questions * 4))
        chain = {"found": retriever, "question": RunnablePassthrough()} | RunnableLambda(len)
        pieces = [piece async for piece in retriever.astream(QUESTION)]
        return await retriever.abatch(questions), together, pieces, await chain.ainvoke(QUESTION)

    def ids(lists: Sequence[Sequence[Any]]) -> list[list[str]]:
        return [[document.id for document in documents] for documents in lists]

    for _ in range(2):  # a second event loop finds nothing left of the first one's connections
        batch, together, pieces, size = asyncio.run(ask())
        assert ids(batch) == ids(alone)
        assert ids(together) == ids(alone) * 4
        assert ids(pieces) == ids(alone[:1])
        assert size == 2
    assert ids(retriever.batch(questions)) == ids(alone)
    assert ids(list(retriever.stream(QUESTION))) == ids(alone[:1])


def test_over_a_service_async_uses_no_thread(url: str) -> None:
    retriever = HybridRetriever(url=url, top_k=2)

    async def ask() -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a thread was used")

        loop = asyncio.get_running_loop()
        loop.run_in_executor = refuse  # type: ignore[method-assign, assignment]
        assert len(await retriever.ainvoke(KOREAN)) == 2

    asyncio.run(ask())


def test_configurable_fields_share_what_is_open(sample_bundle: Path) -> None:
    retriever = HybridRetriever(bundle=sample_bundle, top_k=2)
    shared = []

    class Spying(HybridRetriever):
        def model_post_init(self, context: Any) -> None:
            super().model_post_init(context)
            shared.append(self.source)

    spying = Spying(**retriever.__dict__)
    flexible = spying.configurable_fields(top_k=ConfigurableField(id="top_k"))
    assert len(flexible.invoke(QUESTION, config={"configurable": {"top_k": 6}})) == 6
    assert len(shared) >= 2
    assert all(source is retriever.source for source in shared)


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, ["bundle or url", "neither"]),
        ({"bundle": "b", "url": "http://h"}, ["both"]),
        ({"url": "ftp://h"}, ["http(s)"]),
        ({"url": "http://h:port"}, ["url cannot be read"]),
        ({"url": "http://h", "top_k": 0}, ["top_k"]),
        ({"url": "http://h", "legs": "left"}, ["legs"]),
        ({"url": "http://h", "topk": 3}, ["no field topk", "top_k"]),
        ({"url": "http://h", "min_score": float("nan")}, ["min_score"]),
    ],
)
def test_fields_that_cannot_be_used(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        HybridRetriever(**fields)
    one_line(error, *parts)


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing) as error:
        HybridRetriever(bundle=tmp_path / "none")
    one_line(error, "none")


@pytest.mark.parametrize(
    ("query", "options", "kind", "part"),
    [
        ("  ", {}, InvalidRequest, "empty"),
        (QUESTION, {"filter": {"lang": {"$like": "k"}}}, InvalidFilter, "$like"),
        (QUESTION, {"fusion": {"method": "magic"}}, InvalidRequest, "fusion.method"),
        (QUESTION, {"top_k": 100_000}, InvalidRequest, "top_k"),
        (QUESTION, {"legs": "left"}, InvalidRequest, "legs"),
        (QUESTION, {"k": 3}, InvalidRequest, "k is not an option"),
        (3, {}, InvalidRequest, "int"),
    ],
)
def test_what_cannot_be_searched(
    where: dict[str, Any], query: Any, options: dict[str, Any], kind: type[Exception], part: str
) -> None:
    retriever = HybridRetriever(**where)
    with pytest.raises(kind) as error:
        retriever.invoke(query, **options)
    one_line(error, part)
    with pytest.raises(kind) as error:
        asyncio.run(retriever.ainvoke(query, **options))
    one_line(error, part)


def test_a_service_that_is_not_there_or_not_ready_or_something_else(s3_endpoint: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        HybridRetriever(url="http://127.0.0.1:1").invoke(QUESTION)
    one_line(error, "cannot be reached", "rag serve")
    with pytest.raises(ConfigurationError) as error:
        HybridRetriever(url=s3_endpoint).invoke(QUESTION)
    one_line(error, "is it a rag service?")
    with Running(None) as loading, pytest.raises(NotReady) as error:
        HybridRetriever(url=loading).invoke(QUESTION)
    one_line(error, "503")


def test_a_service_that_does_not_answer_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"
        retriever = HybridRetriever(url=address, timeout_s=0.2)
        with pytest.raises(DeadlineExceeded) as error:
            retriever.invoke(QUESTION)
        one_line(error, "timeout_s")
        assert "secret" not in str(error.value)
        with pytest.raises(DeadlineExceeded):
            asyncio.run(retriever.ainvoke(QUESTION))


HISTORY = [
    HumanMessage("What does SageMaker send to stop a container?"),
    AIMessage("It sends SIGTERM, and later SIGKILL. [1]"),
]


def test_a_follow_up_is_rewritten_before_it_is_searched(where: dict[str, Any]) -> None:
    retriever = HybridRetriever(**where, top_k=3)
    chain = history_aware_retriever(FakeListChatModel(responses=[QUESTION]), retriever)
    vague = "And how long is it between them?"
    expected = [d.id for d in retriever.invoke(QUESTION)]
    assert [d.id for d in retriever.invoke(vague)] != expected
    for history in (HISTORY, [("human", "a"), ("ai", "b")]):
        values = {"input": vague, "chat_history": history}
        assert [d.id for d in chain.invoke(values)] == expected
        assert [d.id for d in asyncio.run(chain.ainvoke(values))] == expected


def test_a_first_question_asks_no_model(where: dict[str, Any]) -> None:
    retriever = HybridRetriever(**where, top_k=3)
    model = GenericFakeChatModel(messages=iter([]))  # asked at all, it would fail
    chain = history_aware_retriever(model, retriever)
    found = chain.invoke({"input": KOREAN, "chat_history": []})
    assert [d.id for d in found] == [d.id for d in retriever.invoke(KOREAN)]
    assert chain.invoke({"input": KOREAN}) == found


def test_a_conversation_is_answered_from_what_was_found(where: dict[str, Any]) -> None:
    heard: list[Any] = []

    class Listening(FakeListChatModel):
        def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            heard.append(messages)
            return super()._call(messages, *args, **kwargs)

    chain = conversational_chain(
        Listening(responses=["It waits 30 seconds. [1]"]),
        HybridRetriever(**where, top_k=3),
        rewriter=FakeListChatModel(responses=[QUESTION]),
    )
    reply = chain.invoke({"input": "How long between them?", "chat_history": HISTORY})
    assert reply["answer"] == "It waits 30 seconds. [1]"
    assert reply["input"] == "How long between them?"
    assert len(reply["context"]) == 3
    kinds = [message.type for message in heard[0]]
    assert kinds == ["system", "human", "ai", "human"]
    assert reply["context"][0].page_content[:60] in heard[0][-1].content
    assert "How long between them?" in heard[0][-1].content


def test_a_conversation_streams_its_answer_in_pieces(where: dict[str, Any]) -> None:
    answer = "연차는 15일입니다. [1]"
    chain = conversational_chain(
        FakeListChatModel(responses=[answer]), HybridRetriever(**where, top_k=2)
    )

    async def read() -> list[dict[str, Any]]:
        return [piece async for piece in chain.astream({"input": KOREAN})]

    for pieces in (asyncio.run(read()), list(chain.stream({"input": KOREAN}))):
        said = [piece["answer"] for piece in pieces if "answer" in piece]
        assert "".join(said) == answer
        assert len(said) > 5
        places = [place for place, piece in enumerate(pieces) if "context" in piece]
        assert places
        assert max(places) < next(i for i, piece in enumerate(pieces) if piece.get("answer"))


def test_a_chat_model_answers_through_the_answerer(opened: Opened) -> None:
    passages = opened.retriever.search([Query(QUESTION, top_k=3)])[0].passages
    sentence = passages[0].chunk.text.split(". ")[0].replace("\n", " ") + "."
    model = FakeListChatModel(responses=[f"{sentence} [1]"])
    answerer = Answerer(LangChainGenerator(model), support=Support(opened.bundle.analyzer.words))

    async def ask() -> list[Any]:
        stream = answerer.stream(QUESTION, passages, deadline=time.monotonic() + 60)
        return [event async for event in stream]

    events = asyncio.run(ask())
    assert len(events) > 5
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.answer.generator == "FakeListChatModel"
    assert [citation.passages for citation in finished.answer.citations] == [(1,)]


def speak(model: Any, *, seconds: float = 60) -> str:
    """All that a generator over `model` says to one question."""
    generator = LangChainGenerator(model)
    prompt = Prompt("연차?", [], [Message("system", "s"), Message("user", "연차?")])

    async def ask() -> str:
        stream = generator.stream(prompt, deadline=time.monotonic() + seconds)
        return "".join([delta.text async for delta in stream])

    return asyncio.run(ask())


class Failing(FakeListChatModel):
    """A model of LangChain's that fails as a provider's client would."""

    error: Any

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error
        yield


def answered(status: int) -> Exception:
    """The error of OpenAI's client for a reply of that status."""
    request = httpx2.Request("POST", "http://models.example/v1")
    reply = httpx2.Response(status, request=request)
    return openai.APIStatusError("Bearer abc.def was\n\nrefused", response=reply, body=None)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def of_botocore(status: int) -> Exception:
    error = RuntimeError("an error occurred")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered(429), GeneratorThrottled),
        (answered(503), GeneratorUnavailable),
        (answered(401), GeneratorFailure),
        (of_botocore(429), GeneratorThrottled),
        (caused(RuntimeError("x"), httpx.ConnectError("refused")), GeneratorUnavailable),
        (caused(RuntimeError("x"), httpx.ReadTimeout("slow")), GeneratorTimeout),
        (caused(RuntimeError("x"), httpx2.ConnectError("refused")), GeneratorUnavailable),
        (caused(RuntimeError("x"), httpx2.ReadTimeout("slow")), GeneratorTimeout),
        (ConnectionResetError("reset"), GeneratorUnavailable),
        (OutputParserException("not JSON"), GeneratorProtocolError),
        (KeyError("k"), GeneratorFailure),
    ],
)
def test_what_a_chat_model_raises_becomes_ours(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(GeneratorFailure) as raised:
        speak(Failing(responses=[], error=error))
    assert type(raised.value) is kind
    assert raised.value.__cause__ is error
    one_line(raised, "chat model Failing", type(error).__name__)
    assert "abc.def" not in str(raised.value)


def test_a_chat_model_is_cut_off_at_the_deadline() -> None:
    with pytest.raises(GeneratorTimeout) as raised:
        speak(FakeListChatModel(responses=["a" * 10_000], sleep=0.05), seconds=0.4)
    one_line(raised, "deadline")


def test_a_chat_model_speaks_in_blocks_or_not_at_all() -> None:
    blocks = [{"type": "reasoning", "reasoning": "음"}, {"type": "text", "text": "15일입니다."}]

    class Blocks(FakeListChatModel):
        blocks: Any

        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk(content=self.blocks))

    assert speak(Blocks(responses=[], blocks=blocks)) == "15일입니다."
    with pytest.raises(GeneratorFailure, match="without any text"):
        speak(Blocks(responses=[], blocks=blocks[:1]))


def test_closing_the_stream_closes_the_models() -> None:
    closed: list[bool] = []

    class Endless(FakeListChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            try:
                while True:
                    yield ChatGenerationChunk(message=AIMessageChunk(content="a"))
            finally:
                closed.append(True)

    async def ask() -> None:
        generator = LangChainGenerator(Endless(responses=[]))
        prompt = Prompt("q", [], [Message("user", "q")])
        stream: Any = generator.stream(prompt, deadline=time.monotonic() + 60)
        await anext(stream)
        await stream.aclose()
        for _ in range(100):
            if closed:
                break
            await asyncio.sleep(0)
        assert closed

    asyncio.run(ask())
