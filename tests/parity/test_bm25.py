"""BM25 scores against the libraries that users know: rank-bm25 and bm25s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
import rank_bm25

from rag.index.analyzer import make_analyzer
from rag.index.sparse import SparseLeg, build_sparse

SENTENCES = [
    "The retriever reads the index and ranks passages by score",
    "서울의 검색 엔진은 색인을 읽고 문서를 찾는다",
    "Dense vectors and sparse terms are fused by rank",
    "검색 결과는 점수 순서로 정렬한다",
    "An index holds postings: terms, rows and scores",
    "passages passages passages repeat themselves",
    "형태소 분석기는 조사를 버리고 명사를 남긴다",
]


def corpus() -> list[list[str]]:
    """Sentences joined at random, so that lengths and frequencies vary."""
    rng = np.random.default_rng(11)
    texts = [" ".join(rng.choice(SENTENCES, size=rng.integers(1, 5))) for _ in range(150)]
    return make_analyzer("cjk").batch([f"{text} unique{i}" for i, text in enumerate(texts)])


QUERIES = make_analyzer("cjk").batch(
    [
        "rank the passages",
        "검색 색인",
        "index index 문서 unique17",
        "unique3 unique4",
        "형태소 분석기 terms",
    ]
)


def scores_of(leg: SparseLeg, query: list[str], rows: int) -> dict[int, float]:
    hits = leg.search([query], rows, None)
    return {int(r): float(s) for r, s in zip(hits.rows[0], hits.scores[0], strict=True) if r >= 0}


RANK = {
    "okapi": lambda c: rank_bm25.BM25Okapi(c, k1=1.3, b=0.6),
    "bm25+": lambda c: rank_bm25.BM25Plus(c, k1=1.3, b=0.6, delta=0.7),
}


@pytest.mark.parametrize("method", RANK)
def test_scores_equal_rank_bm25(tmp_path: Path, method: str) -> None:
    passages = corpus()
    reference = RANK[method](passages)
    options: dict[str, Any] = {"method": method, "k1": 1.3, "b": 0.6, "delta": 0.7}
    leg = SparseLeg.open(tmp_path, build_sparse(tmp_path, passages, **options))
    compare(leg, passages, reference.get_scores)


@pytest.mark.parametrize("method", ["okapi", "bm25l", "bm25+"])
def test_the_rank_bm25_engine_is_the_library(tmp_path: Path, method: str) -> None:
    passages = corpus()
    name = {"okapi": "BM25Okapi", "bm25l": "BM25L", "bm25+": "BM25Plus"}[method]
    extra = {} if method == "okapi" else {"delta": 0.7}
    reference = getattr(rank_bm25, name)(passages, k1=1.3, b=0.6, **extra)
    options: dict[str, Any] = {"method": method, "k1": 1.3, "b": 0.6, "delta": 0.7}
    leg = SparseLeg.open(tmp_path, build_sparse(tmp_path, passages, engine="rank-bm25", **options))
    compare(leg, passages, reference.get_scores)


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_scores_equal_bm25s(tmp_path: Path, method: str) -> None:
    passages = corpus()
    reference = bm25s.BM25(method=method, k1=1.3, b=0.6, delta=0.7)
    reference.index(passages, show_progress=False)
    options: dict[str, Any] = {"method": method, "k1": 1.3, "b": 0.6, "delta": 0.7}
    leg = SparseLeg.open(tmp_path, build_sparse(tmp_path, passages, **options))
    compare(leg, passages, reference.get_scores)


def compare(leg: SparseLeg, passages: list[list[str]], scores: Any) -> None:
    """Equal scores for every passage that shares a term, and no other passage found."""
    for query in QUERIES:
        found = scores_of(leg, query, len(passages))
        sharing = [row for row, p in enumerate(passages) if set(query) & set(p)]
        assert sorted(found) == sharing
        truth = np.asarray(scores(query))[sharing]
        np.testing.assert_allclose([found[row] for row in sharing], truth, rtol=1e-5, atol=1e-5)
