"""Real images in real containers, through whatever engine CONTAINER_ENGINE names."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local import hosting
from sagemaker_local.engine import Engine, Mount
from sagemaker_local.errors import EngineError
from sagemaker_local.hosting import FLAGS, Endpoint, Reply

HERE = Path(__file__).parent
GENERATOR_PORT = 9009
DOCUMENTS = {
    "en/lamp.md": "# Desk lamp\n\nHold the power button for ten seconds to reset the lamp."
    " The lamp has a warranty of three years.",
    "en/kettle.md": "# Kettle\n\nDescale the kettle with vinegar every month.",
    "en/garden.md": "# Garden\n\nWater the tomatoes every morning. Prune roses in February.",
    "ko/휴가.md": "# 휴가 규정\n\n정규직 직원은 매년 15일의 연차 휴가를 받습니다.",
}


class Service:
    """A service in a container, as tests speak to it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.container = endpoint.container

    def ask(self, query: str = "How do I reset the lamp?", **fields: Any) -> Reply:
        headers = {"content-type": "application/json"} | fields.pop("headers", {})
        body = json.dumps({"query": query} | fields).encode()
        return self.endpoint.send("POST", "/invocations", body, headers)

    def post(self, body: Any, kind: str = "application/json", **headers: str) -> Reply:
        return self.endpoint.send("POST", "/invocations", body, {"content-type": kind} | headers)

    def inside(self, *command: str) -> int:
        """The exit code of a command in the container."""
        return self.container.engine.run("exec", self.container.name, *command).returncode

    def has(self, path: str) -> bool:
        """Whether the file is there, in the container."""
        return self.inside("test", "-e", path) == 0

    def lines(self) -> list[dict[str, Any]]:
        """The log, which is JSON lines and nothing else."""
        return [json.loads(line) for line in self.container.logs().splitlines()]

    def until(self, true: Callable[[], bool], timeout_s: float = 60) -> None:
        """Waits for something that must become true."""
        end = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end, self.container.logs()
            time.sleep(0.05)


Serve = Callable[..., AbstractContextManager[Service]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.container)


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return Engine.find()
    except EngineError as error:
        pytest.skip(str(error))


def _image(engine: Engine, variable: str, default: str) -> str:
    name = os.environ.get(variable, default)
    if engine.run("image", "inspect", name).returncode:
        pytest.skip(f"there is no image {name}: `make images` builds it, {variable} names another")
    return name


@pytest.fixture(scope="session")
def inference(engine: Engine) -> str:
    """The inference image's name."""
    return _image(engine, "RAG_INFERENCE_IMAGE", "rag-inference")


@pytest.fixture(scope="session")
def indexer(engine: Engine) -> str:
    """The indexer image's name."""
    return _image(engine, "RAG_INDEXER_IMAGE", "rag-indexer")


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[[Path], Path], documents: Path) -> Path:
    """The sealed bundle of the documents."""
    return make_bundle(documents)


@pytest.fixture(scope="session")
def make_bundle(
    engine: Engine, indexer: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """A folder of documents to a sealed bundle, by the indexer image without any network."""
    return lambda documents: build(engine, indexer, documents, tmp_path_factory.mktemp("built"))


def build(engine: Engine, image: str, documents: Path, output: Path) -> Path:
    """`docker run IMAGE build` with plain flags; the folder of the version that it made."""
    container = engine.start(
        image, ["build", "--source", "/in", "--output", "/out", "--quiet", "--json"],
        mounts=[Mount(documents, "/in", read_only=True), Mount(output, "/out")],
        flags=[*FLAGS, "--network", "none"],
    )  # fmt: skip
    try:
        assert container.wait() == 0, container.logs()
    finally:
        container.remove()
    version = json.loads((output / "CURRENT").read_bytes())["version"]
    return output / "versions" / version


@pytest.fixture(scope="session")
def serve(engine: Engine, inference: str, bundle: Path) -> Serve:
    """`with serve(RAG_…="…") as endpoint:` a service on the bundle, as the platform starts it."""

    @contextlib.contextmanager
    def start(
        model: Path | None = bundle, *, image: str = inference, ready: bool = True, **options: Any
    ) -> Iterator[Service]:
        names = [name for name in options if name.isupper()]
        environment = {name: options.pop(name) for name in names}
        with hosting.endpoint(engine, image, model, environment=environment, **options) as endpoint:
            if ready:
                endpoint.wait()
            yield Service(endpoint)

    return start


@pytest.fixture(scope="session")
def served(serve: Serve) -> Iterator[Service]:
    """One service for all tests that leave it as it was."""
    with serve() as service:
        yield service


@pytest.fixture(scope="session")
def talking(serve: Serve) -> Serve:
    """A service whose generator is the fake endpoint, beside it in its container."""

    @contextlib.contextmanager
    def start(behaviour: str, **options: Any) -> Iterator[Service]:
        url = f"http://127.0.0.1:{GENERATOR_PORT}/v1"
        with serve(
            RAG_GENERATOR="openai", RAG_GENERATOR_URL=url, RAG_GENERATOR_MODEL=behaviour,
            mounts=[Mount(HERE / "chat_endpoint.py", "/chat_endpoint.py", read_only=True)],
            **options,
        ) as service:  # fmt: skip
            command = ("python3", "/chat_endpoint.py", str(GENERATOR_PORT))
            service.container.engine.call("exec", "--detach", service.container.name, *command)
            probe = f"import socket; socket.create_connection(('127.0.0.1', {GENERATOR_PORT}))"
            service.until(lambda: service.inside("python3", "-c", probe) == 0)
            yield service

    return start


@pytest.fixture
def damaged(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with one bit of its chunks flipped."""
    copy = tmp_path / "damaged"
    shutil.copytree(bundle, copy)
    chunks = copy / "chunks.arrow"
    data = bytearray(chunks.read_bytes())
    data[len(data) // 2] ^= 1
    chunks.write_bytes(data)
    return copy
