"""The default encoder against sentence-transformers, called as its own documentation calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.models.load import load_embedder

TEXTS = [
    "What is the notice period?", "해지 통보 기간은 얼마나 되나요?", "", "a",
    "Retrieval joins two lists by rank. " * 50, "검색은 두 목록을 순위로 합친다. " * 50,
    "SELECT id FROM chunks WHERE lang = 'ko';", "2024-03-15 | 1,234.56 EUR", "😀 日本語 naïve",
]  # fmt: skip


@pytest.fixture(scope="module")
def expected(encoder_source: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(encoder_source), device="cpu")
    vectors: np.ndarray = model.encode(TEXTS, normalize_embeddings=True)
    return vectors


@pytest.mark.parametrize(
    ("backend", "precision", "least"),
    [
        ("onnx", "float32", 0.9999),
        ("torch", "float32", 0.9999),
        ("torch", "bfloat16", 0.999),
        ("onnx", "int8", 0.97),
    ],
)
def test_cosine_with_sentence_transformers(
    exported_encoder: Path,
    expected: np.ndarray,
    backend: Any,
    precision: str,
    least: float,
    record_property: pytest.RecordProperty,
) -> None:
    embedder = load_embedder(exported_encoder, backend=backend, precision=precision)
    cosines = (embedder.embed_passages(TEXTS) * expected).sum(axis=1)
    record_property("cosine_min", float(cosines.min()))
    assert cosines.min() >= least, dict(zip(TEXTS, cosines.round(5).tolist(), strict=True))
    assert cosines.max() <= 1.0001


def test_the_exported_folder_is_a_sentence_transformer(
    exported_encoder: Path, expected: np.ndarray
) -> None:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(exported_encoder), device="cpu")
    assert model.max_seq_length == 256
    assert (model.encode(TEXTS) * expected).sum(axis=1).min() > 0.9999
