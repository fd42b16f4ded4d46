"""Fixtures that are too dear to make twice: an S3 API server, an exported encoder, a bundle."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

_buckets = itertools.count()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of a moto server in a process of its own: a real S3 API over HTTP."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=1).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        else:
            pytest.fail("the S3 API server did not start")
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def s3_prefix(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket/prefix` in a new bucket; the environment points clients at the server."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(_buckets)}-{time.time_ns()}"
    request = urllib.request.Request(f"{s3_endpoint}/{bucket}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(scope="session")
def encoder_source() -> Path:
    """The default encoder's folder, as its package holds it."""
    from rag.models.encoder import resolve

    return resolve("default")


@pytest.fixture(scope="session")
def encoder_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where builds of this test run keep exported encoders: one export serves them all."""
    return tmp_path_factory.mktemp("encoder-cache")


@pytest.fixture(scope="session")
def exported_encoder(
    encoder_source: Path, encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The default encoder as an indexer exports it; read it, never write into it."""
    from indexer.encoders import prepare_encoder
    from rag.models.encoder import EncoderConfig

    folder = tmp_path_factory.mktemp("exported") / "encoder"
    config = EncoderConfig.read(encoder_source)
    prepare_encoder(encoder_source, folder, config, safetensors=True, cache=encoder_cache)
    return folder


@pytest.fixture(scope="session")
def sample_documents() -> Path:
    """The sample corpus's folder."""
    return Path(__file__).parents[1] / "eval" / "sample" / "documents"


@pytest.fixture(scope="session")
def sample_bundle(
    sample_documents: Path, encoder_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The sealed bundle of the whole sample corpus; read it, never write into it."""
    from indexer.build import BuildOptions, build
    from indexer.source import Source

    folder = tmp_path_factory.mktemp("sample") / "bundle"
    options = BuildOptions(encoder_cache=encoder_cache, backend="onnx", strict=True)
    return build(Source(str(sample_documents)), folder, options).folder
