"""Real servers over a real bundle: in a thread for speed, in a process where signals matter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from indexer.build import BuildOptions, build
from indexer.source import Source
from rag.answering.answer import Answerer
from rag.answering.expansion_prompts import PROMPTS
from rag.answering.support import Support
from rag.models.extractive import ExtractiveGenerator
from rag.models.openai_generator import OpenAIGenerator
from rag.retrieval.opening import Opened, open_retriever
from rag.service.access import Access
from rag.service.encoding import EncoderStage
from rag.service.engine import Done, Engine
from rag.service.expanding import Expander
from rag.service.handling import Logged
from rag.service.http_server import Server, listen
from rag.service.metrics import Metrics
from rag.service.refusing import Refusals
from rag.service.routes import create_app
from rag.service.schemas import Limits
from rag.service.state import Service
from rag.service.tracing import Tracing
from rag.service.vector_cache import VectorCache

DOCUMENTS = {
    "en/lamp.md": "# Desk lamp\n\nHold the power button for ten seconds to reset the lamp."
    " The lamp has a warranty of three years.\n\n## Cleaning\n\nWipe it with a dry cloth.",
    "en/kettle.md": "# Kettle\n\nDescale the kettle with vinegar every month."
    " The kettle holds 1.7 litres of water.",
    "en/bicycle.txt": "The tyres of the bicycle need a pressure of four bar. Oil the chain weekly.",
    "en/garden.md": "# Garden\n\nWater the tomatoes every morning. Prune roses in February.",
    "ko/휴가.md": "# 휴가 규정\n\n정규직 직원은 매년 15일의 연차 휴가를 받습니다."
    " 휴가 신청은 사흘 전에 해야 합니다.",
    "ko/보안.md": "# 보안 안내\n\n비밀번호는 90일마다 바꿔야 합니다. 출입증은 항상 착용합니다.",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def bundle_folder(encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of six small documents."""
    folder = tmp_path_factory.mktemp("service")
    for name, text in DOCUMENTS.items():
        path = folder / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    options = BuildOptions(backend="onnx", encoder_cache=encoder_cache)
    return build(Source(str(folder / "documents")), folder / "bundle", options).folder


@pytest.fixture(scope="session")
def opened(bundle_folder: Path) -> Opened:
    return open_retriever(str(bundle_folder))


class TappedEmbedder:
    """The real encoder, with something that happens before each batch of queries."""

    def __init__(self, embedder: Any, before: Callable[[Sequence[str]], None]) -> None:
        self._embedder = embedder
        self._before = before
        self.config = embedder.config

    def embed_queries(self, texts: Sequence[str]) -> Any:
        self._before(texts)
        return self._embedder.embed_queries(texts)

    def embed_passages(self, texts: Sequence[str]) -> Any:
        return self._embedder.embed_passages(texts)

    def readable(self, texts: Sequence[str]) -> Any:
        return self._embedder.readable(texts)

    def query_tokens(self, texts: Sequence[str]) -> Any:
        return self._embedder.query_tokens(texts)


class Running:
    """A server in a thread of its own, on a free port."""

    def __init__(self, service: Service, metrics: Metrics, **options: Any) -> None:
        self.service = service
        self.metrics = metrics
        self._listener = listen("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        refusals = Refusals(service, metrics)
        self.server = Server(create_app(service, metrics, refusals=refusals, **options), refusals)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.client = httpx2.Client(base_url=self.url, timeout=60)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve(sockets=[self._listener])
        await self.service.close()

    def start(self) -> None:
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ask(self, query: str = "How do I reset the lamp?", **fields: Any) -> httpx2.Response:
        headers = fields.pop("headers", {})
        return self.client.post("/invocations", json={"query": query} | fields, headers=headers)

    def post(self, body: bytes, content_type: str, **headers: str) -> httpx2.Response:
        return self.client.post(
            "/invocations", content=body, headers={"content-type": content_type, **headers}
        )

    def frames(self, query: str = "How do I reset the lamp?", **fields: Any) -> list[Any]:
        response = self.ask(query, stream=True, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.text.splitlines()]


@pytest.fixture(scope="session")
def launch(opened: Opened) -> Callable[..., contextlib.AbstractContextManager[Running]]:
    """`with launch(...) as running:` a server whose parts can be chosen."""

    @contextlib.contextmanager
    def start(
        *,
        generator: Any = None,
        reranking: Any = None,
        before: Callable[[Sequence[str]], None] | None = None,
        limits: Limits | None = None,
        loaded: bool = True,
        max_in_flight: int = 1024,
        queue_max_items: int = 256,
        batch_max_tokens: int = 8192,
        query_cache_bytes: int = 0,
        stalled_after_s: float = 120.0,
        access: Access | None = None,
        tracing: Tracing | None = None,
        logged: Logged = "failures",
        opened: Opened = opened,
        reserve_s: float = 2.0,
        answering: Mapping[str, Any] | None = None,
    ) -> Iterator[Running]:
        metrics = Metrics()

        def done(event: Done) -> None:
            metrics.done(event)
            if tracing is not None:
                tracing.stages(event)

        service = Service(limits or Limits(), max_in_flight=max_in_flight, access=access)
        metrics.watch(service)
        embedder = opened.embedder
        searched_by = embedder if before is None else TappedEmbedder(embedder, before)
        terms = opened.bundle.analyzer.words
        expander = Expander(generator)
        generator = generator or ExtractiveGenerator(
            terms, embedder.embed_passages, embedder.embed_queries
        )
        stage = EncoderStage(
            searched_by,
            cache=VectorCache(query_cache_bytes),
            batch_max_tokens=batch_max_tokens,
            max_waiting=queue_max_items,
            stalled_after_s=stalled_after_s,
            observe=metrics.encoded,
        )
        engine = Engine(
            opened.retriever.searcher,
            stage,
            Answerer(generator, support=Support(terms, embedder), **(answering or {})),
            version=opened.bundle.manifest.version,
            generator=generator,
            queue_max_items=queue_max_items,
            expander=expander,
            reranking=reranking,
            reserve_s=reserve_s,
            stalled_after_s=stalled_after_s,
            observe_search=metrics.searched,
            observe_done=done,
        )
        if loaded:
            service.begin(engine)
        running = Running(service, metrics, tracing=tracing, logged=logged)
        running.start()
        try:
            yield running
        finally:
            running.stop()

    return start


@pytest.fixture(scope="session")
def server(launch: Callable[..., contextlib.AbstractContextManager[Running]]) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with launch() as running:
        yield running


class Endpoint:
    """A chat endpoint on a real port, which behaves as the model's name says."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.left = threading.Event()
        """Set when the caller of a 'hang' closed its connection."""
        self.entered = threading.Event()
        self.go_on = threading.Event()
        """Lets a 'stepwise' answer continue after its first word."""
        self.expansion = "fine"
        """How it behaves where it is to expand a query; 'say …' is what it says."""
        self.asked: list[dict[str, Any]] = []
        """The requests so far."""
        config = uvicorn.Config(
            self._app, interface="asgi3", host="127.0.0.1", port=self.port, log_config=None,
            lifespan="off", timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def generator(self, model: str) -> OpenAIGenerator:
        return OpenAIGenerator(self.url, model, api_key="sk-very-secret")

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        self.go_on.set()
        self._server.should_exit = True
        self._thread.join(30)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body") or "body" in message:
            body += message["body"]
            if not message["more_body"]:
                break
        request = json.loads(body)
        self.asked.append(request)
        behaviour = request["model"]
        if any(request["messages"][0]["content"] == prompt.system for prompt in PROMPTS.values()):
            behaviour = self.expansion
        self.entered.set()
        if behaviour == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
            return
        status = int(behaviour) if behaviour.isdigit() else 200
        kind = b"text/event-stream" if status == 200 else b"application/json"
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind)],
            }
        )
        if status != 200:
            error = json.dumps({"error": {"message": "no"}}).encode()
            await send({"type": "http.response.body", "body": error})
            return
        await self._talk(behaviour, receive, send)

    async def _talk(self, behaviour: str, receive: Any, send: Any) -> None:
        words = ["Hold ", "the ", "power ", "button ", "[1]."]
        if behaviour == "flood":
            words = ["x" * 65536 + " "] * 2000
        if behaviour.startswith("say "):
            words = [behaviour.removeprefix("say ")]
        for place, word in enumerate(words):
            await self._frame(send, {"choices": [{"index": 0, "delta": {"content": word}}]})
            if place == 0 and behaviour == "stepwise":
                while not self.go_on.is_set():
                    await asyncio.sleep(0.005)
            if place == 1 and behaviour == "garbage":
                await send(
                    {"type": "http.response.body", "body": b"data: {nope\n\n", "more_body": True}
                )
            if place == 1 and behaviour == "hang-in-the-middle":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.left.set()
                return
        await self._frame(send, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _frame(self, send: Any, chunk: dict[str, Any]) -> None:
        data = b"data: " + json.dumps({"object": "chat.completion.chunk"} | chunk).encode()
        await send({"type": "http.response.body", "body": data + b"\n\n", "more_body": True})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    made.start()
    yield made
    made.stop()


class Process:
    """`rag serve` as a process; its log is read as JSON lines."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        base = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "SAGEMAKER_"))}
        settings = {"RAG_HOST": "127.0.0.1", "RAG_PORT": str(self.port)} | environment
        command = [sys.executable, "-m", "rag", "serve"]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(command, env=base | settings, stderr=stream)
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def ping(self) -> int:
        """The status of /ping, or 0 while nothing listens."""
        try:
            return self.client.get("/ping").status_code
        except httpx2.TransportError:
            return 0

    def until(self, status: int) -> None:
        end = time.monotonic() + 120
        while self.ping() != status:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `rag serve` with settings such as RAG_BUNDLE="…"; stopped at the end."""
    started: list[Process] = []

    def start(**environment: str) -> Process:
        started.append(Process(environment, tmp_path / f"log-{len(started)}"))
        return started[-1]

    yield start
    for process in started:
        process.client.close()
        process.process.kill()
        process.process.wait(30)
