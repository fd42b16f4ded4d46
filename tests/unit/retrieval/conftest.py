from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.collection import Collection
from eval.vectors import LazyEmbedder
from rag.index.analyzer import make_analyzer
from rag.index.dense import DenseLeg, build_dense
from rag.index.manifest import Manifest
from rag.index.sparse import SparseLeg, build_sparse
from rag.types import Chunk, Float32

WORDS = ["검색", "색인", "서울", "배포", "index", "query", "vector", "shard", "cache", "queue"]
ROWS = 400


def unit(vectors: Float32) -> Float32:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def passages(rng: np.random.Generator, rows: int) -> list[list[str]]:
    """Skewed words, so that some are rare; a few passages are empty, every tenth one twice."""
    odds = 1 / np.arange(1, len(WORDS) + 1)
    made = [
        list(rng.choice(WORDS, size=rng.integers(0, 8), p=odds / odds.sum())) for _ in range(rows)
    ]
    return [made[i - 1] if i % 10 == 9 else made[i] for i in range(rows)]


def collection(folder: Path, terms: list[list[str]], vectors: Float32) -> Collection:
    """The real legs over passages that are given as terms and vectors."""
    dense, sparse = build_dense(folder, vectors), build_sparse(folder, terms)
    analyzer = make_analyzer("whitespace")
    manifest = Manifest(
        version="", counts={"chunks": len(terms)}, encoder={}, analyzer={}, chunker={},
        dense=dense, sparse=sparse, fusion={}, chunks_digest="", files={},
    )  # fmt: skip
    chunks = [
        Chunk(doc_id=f"{i:04}", uri="", title="", text=" ".join(words), start=0, end=0)
        for i, words in enumerate(terms)
    ]
    legs = DenseLeg.open(folder, dense), SparseLeg.open(folder, sparse)
    return Collection(manifest, chunks, *legs, analyzer)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=(ROWS, 24)) + rng.normal(size=24))
    vectors[9::10] = vectors[8::10]
    return collection(tmp_path_factory.mktemp("index"), passages(rng, ROWS), vectors)


@pytest.fixture
def build(tmp_path: Path) -> Callable[[list[list[str]], Float32], Collection]:
    return lambda terms, vectors: collection(tmp_path, terms, vectors)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> LazyEmbedder:
    """The real tokenizer; its model is never loaded here."""
    return LazyEmbedder("default", exports=tmp_path_factory.mktemp("exports"))
