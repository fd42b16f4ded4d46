"""Fixtures that are too dear to make twice: an S3 API server, models, a bundle."""

from __future__ import annotations

import io
import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from postgres_process import PASSWORD, USER, PostgresProcess
from weaviate_server import KEY, FakeWeaviate

_buckets = itertools.count()
_tables = itertools.count()


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


@dataclass(frozen=True)
class Database:
    """An external database whose table or collection is not there yet; `wrong` is the same with
    credentials that it does not take, and `lose_connections` ends those that are open.
    """

    url: str
    environment: Mapping[str, str]
    wrong: tuple[str, Mapping[str, str]]
    lose_connections: Callable[[], None]
    secret: str


@pytest.fixture
def weaviate() -> Iterator[FakeWeaviate]:
    """A fake Weaviate at the wire, empty."""
    fake = FakeWeaviate()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a database on a real PostgreSQL with pgvector."""
    import psycopg

    port = free_port()
    server = PostgresProcess(port)
    url = f"postgresql://{USER}:{PASSWORD.replace(':', '%3A')}@127.0.0.1:{port}/postgres"
    try:
        for _ in range(300):
            try:
                psycopg.connect(url, connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        else:
            pytest.fail("PostgreSQL did not start")
        yield url
    finally:
        server.stop()


def weaviate_database(fake: FakeWeaviate) -> Database:
    def reset_once() -> None:
        faults = iter(["reset", 503, 429])
        fake.fault = lambda method, path: next(faults, None)

    url = f"{fake.url}/Passages"
    return Database(
        url, {"WEAVIATE_API_KEY": KEY}, (url, {"WEAVIATE_API_KEY": "some-other-key"}), reset_once,
        KEY,
    )  # fmt: skip


def postgres_database(url: str) -> Database:
    import psycopg

    def terminate() -> None:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'rag-indexer'"
            )

    table = f"?table=passages_{next(_tables)}"
    wrong = url.replace(PASSWORD.replace(":", "%3A"), "some-other-secret")
    return Database(url + table, {}, (wrong + table, {}), terminate, PASSWORD)


@pytest.fixture(params=["weaviate", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """Each kind of external database, empty."""
    if request.param == "weaviate":
        return weaviate_database(request.getfixturevalue("weaviate"))
    return postgres_database(request.getfixturevalue("postgres"))


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
    from indexer.exports import prepare_encoder
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


def make_tiny_encoder(folder: Path) -> None:
    """A BERT of width 32 over bytes, with random weights, that reads 96 tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    words = [f"Ġ{word}" for word in ("the", "and", "of", "to", "a", "is", "in")]
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(words)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", model_max_length=96,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=96, initializer_range=0.4, pad_token_id=0,
    )  # fmt: skip
    plain = folder.with_name("plain")
    tokenizer.save_pretrained(plain)
    BertModel(config).eval().save_pretrained(plain)
    modules = [Transformer(str(plain)), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; read it, never write into it."""
    folder = tmp_path_factory.mktemp("tiny-encoder") / "tiny"
    make_tiny_encoder(folder)
    return folder


def make_cross_encoder(folder: Path) -> None:
    """A tiny BERT over letters, English and Korean, with random weights and one label."""
    import string

    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits + ".,?!" + "가나다라휴연차직원보안비밀번호은는"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    # Wide weights, so that scores depend on the whole pair.
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, num_labels=1, initializer_range=0.5,
        pad_token_id=0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random cross-encoder's folder; read it, never write into it."""
    folder = tmp_path_factory.mktemp("cross-encoder") / "tiny"
    make_cross_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def exported_cross_encoder(cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for ONNX Runtime."""
    from rag.models.export_reranker import export_reranker

    folder = tmp_path_factory.mktemp("exported-cross-encoder") / "tiny"
    export_reranker(cross_encoder, folder)
    return folder


class FakeRerankEndpoint:
    """A fake endpoint at the wire: real HTTP, and what the path says is how it behaves.

    POST /<behaviour>/rerank: 'tei', 'jina' and 'cohere' answer in that dialect, in descending
    order; a number is a status; others are faults. `score` is what judges (query, texts).
    """

    def __init__(self, score: Callable[[str, list[str]], list[float]]) -> None:
        self.score = score
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.go_on = threading.Event()
        """Ends every 'hang' and 'drip'."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.bodies.append(body)
                endpoint.keys.append(self.headers["authorization"])
                endpoint.answer(self, self.path.split("/")[1], body)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, to: BaseHTTPRequestHandler, behaviour: str, body: dict[str, Any]) -> None:
        if behaviour == "hang":
            self.go_on.wait()
        if behaviour == "reset":
            to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            to.close_connection = True
            to.connection.close()
            to.rfile, to.wfile = io.BytesIO(), io.BytesIO()
            return
        status = int(behaviour) if behaviour.isdigit() else 200
        value = self._value(behaviour, body) if status == 200 else {"error": f"key {self.keys[-1]}"}
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        to.send_response(status)
        to.send_header("content-type", "application/json")
        to.send_header("content-length", str(len(data) + (behaviour == "cut")))
        to.end_headers()
        if behaviour == "drip":
            for byte in data:
                if self.go_on.wait(0.02):
                    break
                to.wfile.write(bytes([byte]))
                to.wfile.flush()
        to.wfile.write(data)
        if behaviour == "cut":
            to.close_connection = True

    def _value(self, behaviour: str, body: dict[str, Any]) -> Any:
        texts = body["texts"] if "texts" in body else body["documents"]
        key = "relevance_score" if behaviour in ("jina", "cohere") else "score"
        ranked = [{"index": i, key: s} for i, s in enumerate(self.score(body["query"], texts))]
        ranked.sort(key=lambda result: (-result[key], result["index"]))
        faults: dict[str, Any] = {
            "html": b"<html>not here</html>",
            "map": {"scores": []},
            "missing": ranked[1:],
            "duplicate": [*ranked, ranked[0]],
            "beyond": [{"index": len(texts), "score": 0.5}, *ranked[1:]],
            "negative": [{"index": -1, "score": 0.5}, *ranked[1:]],
            "text": [{"index": 0, "score": "high"}],
            "nan": [{"index": 0, "score": float("nan")}],
            "unlabelled": [0.5] * len(texts),
        }
        if behaviour in ("jina", "cohere"):
            return {"id": "1", "results": ranked, "meta": {}}
        return faults.get(behaviour, ranked)


def overlap(query: str, texts: list[str]) -> list[float]:
    """How many of the query's words a text has, as a share."""
    words = set(query.lower().split())
    return [len(words & set(text.lower().split())) / max(1, len(words)) for text in texts]


@pytest.fixture
def rerank_endpoint() -> Iterator[FakeRerankEndpoint]:
    """A fake endpoint that scores by shared words."""
    endpoint = FakeRerankEndpoint(overlap)
    endpoint.start()
    yield endpoint
    endpoint.stop()
