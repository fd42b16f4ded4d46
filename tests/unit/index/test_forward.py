from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.errors import BundleMissing, BundleMixed
from rag.index.analyzer import make_analyzer
from rag.index.queries import KEPT, QueryAnalysis
from rag.index.sparse import SparseLeg, build_sparse

CORPUS = [["서울", "검색"], ["검색", "검색", "read", "write"], [], ["write"], ["read"] * 6]
VOCABULARY = sorted({term for passage in CORPUS for term in passage})


def open_leg(folder: Path, **options: object) -> SparseLeg:
    return SparseLeg.open(folder, build_sparse(folder, CORPUS, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["bm25s", "rank-bm25"])
def test_terms_and_weights_are_those_of_a_search(tmp_path: Path, engine: str) -> None:
    leg = open_leg(tmp_path, engine=engine)
    rows = np.array([4, 1, 2, 1])
    found = leg.passage_terms(rows)
    for i, row in enumerate(rows):
        own = slice(found.starts[i], found.ends[i])
        assert [VOCABULARY[t] for t in found.terms[own]] == sorted(set(CORPUS[row]))
        for term, weight in zip(found.terms[own], found.weights[own], strict=True):
            hits = leg.search([[VOCABULARY[term]]], 5, None)
            assert weight == pytest.approx(hits.scores[0][hits.rows[0] == row][0], abs=1e-5)


def test_weights_are_never_negative(tmp_path: Path) -> None:
    leg = SparseLeg.open(tmp_path, build_sparse(tmp_path, [["a"], ["a"], ["a"]], method="okapi"))
    assert leg.search([["a"]], 1, None).scores[0, 0] < 0
    assert leg.passage_terms(np.arange(3)).weights.tolist() == [0, 0, 0]


def test_a_query_has_each_known_term_once(tmp_path: Path) -> None:
    found = open_leg(tmp_path).query_terms([["write", "검색", "write", "없음"], ["없음"], []])
    assert found.starts.tolist() == [0, 2, 2, 2]
    assert [VOCABULARY[t] for t in found.terms] == ["write", "검색"]
    assert found.counts.tolist() == [2, 1]
    np.testing.assert_allclose(found.idf, np.log1p((5 - 2 + 0.5) / (2 + 0.5)), rtol=1e-6)


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    leg = open_leg(tmp_path)
    for row in (-1, 5):
        with pytest.raises(IndexError, match=r"0\.\.4"):
            leg.passage_terms(np.array([0, row]))


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    reference = build_sparse(tmp_path, CORPUS)
    path = tmp_path / "sparse" / "forward_indptr.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(BundleMixed, match="forward_indptr"):
        SparseLeg.open(tmp_path, reference)
    path.unlink()
    with pytest.raises(BundleMissing, match="forward_indptr"):
        SparseLeg.open(tmp_path, reference)


def test_queries_are_analysed_as_ever_and_remembered_in_bounds(tmp_path: Path) -> None:
    analyzer = make_analyzer("cjk")
    leg = open_leg(tmp_path)
    analysis = QueryAnalysis(analyzer, leg.ids)

    def check(texts: list[str]) -> None:
        for found, wanted in zip(analysis.batch(texts), analyzer.batch(texts), strict=True):
            ids = [VOCABULARY.index(term) if term in VOCABULARY else -1 for term in wanted]
            assert found.tolist() == sorted(ids)

    texts = ["검색 품질 검색", "read the cached query", "검색 품질 검색", ""]
    for _ in range(2):
        check(texts)
    assert analysis.batch([]) == []
    many = [f"write {i}" for i in range(KEPT + 1)]
    check(many)
    check(texts)
