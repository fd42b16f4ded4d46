"""What every embedder promises, asked of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.models.embedder import Embedder
from rag.models.encoder import REFERENCE_FILE, EncoderConfig, reference
from rag.models.load import load_embedder

KINDS = {
    "onnx-float32": {"backend": "onnx", "precision": "float32"},
    "onnx-int8": {"backend": "onnx", "precision": "int8"},
    "torch-float32": {"backend": "torch", "precision": "float32"},
    "torch-bfloat16": {"backend": "torch", "precision": "bfloat16"},
}
TEXTS = [
    "How many days of notice does the contract require?",
    "계약을 해지하려면 며칠 전에 알려야 하나요?",
    "",
    "x",
    "def mean(values):\n    return sum(values) / len(values)",
    "The pump is primed with clean water before its first start. " * 60,
    "펌프를 처음 가동하기 전에 깨끗한 물을 채운다. " * 40,
    "naïve café 😀 日本語",
]
# bfloat16 keeps eight bits, and its sums depend on the shape of a batch.
TOLERANCE = {"torch-bfloat16": 5e-2}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def embedder(kind: str, exported_encoder: Path) -> Embedder:
    return load_embedder(exported_encoder, **KINDS[kind])  # type: ignore[arg-type]


def close(a: np.ndarray, b: np.ndarray, kind: str) -> bool:
    return bool(np.abs(a - b).max() < TOLERANCE.get(kind, 1e-6))


def test_vectors_are_unit_float32_rows(embedder: Embedder) -> None:
    for embed in (embedder.embed_queries, embedder.embed_passages):
        vectors = embed(TEXTS)
        assert vectors.shape == (len(TEXTS), embedder.config.dimension)
        assert vectors.dtype == np.float32
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed_queries([]).shape == (0, embedder.config.dimension)
    assert embedder.embed_passages([]).dtype == np.float32


def test_rows_are_in_the_order_of_the_texts(embedder: Embedder, kind: str) -> None:
    forward, backward = embedder.embed_passages(TEXTS), embedder.embed_passages(TEXTS[::-1])
    assert close(forward, backward[::-1], kind)
    assert np.unique(forward.round(3), axis=0).shape[0] == len(TEXTS)


def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder, kind: str) -> None:
    together = embedder.embed_passages(TEXTS * 3)
    alone = np.vstack([embedder.embed_passages([text]) for text in TEXTS])
    assert close(together, np.tile(alone, (3, 1)), kind)


def test_a_long_text_is_cut_at_the_limit(embedder: Embedder, kind: str) -> None:
    head = "word " * (embedder.config.max_tokens - 2)
    vectors = embedder.embed_passages([head, head + "and much that is never read " * 50])
    assert close(vectors[0], vectors[1], kind)
    assert not close(vectors[0], embedder.embed_passages(["word " * 20])[0], kind)


def test_meaning_is_near(embedder: Embedder) -> None:
    query = embedder.embed_queries(["When must a contract be cancelled?"])
    passages = embedder.embed_passages(
        ["Notice of termination is due thirty days ahead.", "The pump needs oil.", "펌프 점검 주기"]
    )
    assert int((query @ passages.T).argmax()) == 0


def test_threads_get_the_same_vectors(embedder: Embedder, kind: str) -> None:
    expected = np.vstack([embedder.embed_queries([text]) for text in TEXTS])
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda text: embedder.embed_queries([text]), TEXTS * 2))
    assert close(np.vstack(got), np.tile(expected, (2, 1)), kind)


def test_prompts_are_put_before_the_texts(
    embedder: Embedder, kind: str, exported_encoder: Path, tmp_path: Path
) -> None:
    prompts = {"query": "질의: ", "passage": "passage: "}
    config = replace(EncoderConfig.read(exported_encoder), prompts=prompts)
    folder = shutil.copytree(exported_encoder, tmp_path / "prompted", copy_function=_link)
    (folder / REFERENCE_FILE).unlink()
    (folder / REFERENCE_FILE).write_text(_json(reference(config)), encoding="utf-8")
    prompted = load_embedder(folder, **KINDS[kind])  # type: ignore[arg-type]
    plain: Callable[..., np.ndarray] = embedder.embed_passages
    texts = ["계약 해지", "notice period"]
    assert prompted.config.prompts == prompts
    assert close(prompted.embed_queries(texts), plain(["질의: " + t for t in texts]), kind)
    assert close(prompted.embed_passages(texts), plain(["passage: " + t for t in texts]), kind)
    assert not close(prompted.embed_queries(texts), plain(texts), kind)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _json(value: object) -> str:
    import json

    return json.dumps(value)
