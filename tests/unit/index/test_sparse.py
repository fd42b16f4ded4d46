from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BundleCorrupt, BundleMissing, BundleMixed, ConfigurationError
from rag.index import rank_bm25_engine
from rag.index.sparse import SparseLeg, build_sparse
from rag.index.vocabulary import Vocabulary
from rag.types import NO_ROW

CORPUS = [
    ["서울", "검색"],
    ["검색", "검색", "read", "write"],
    [],
    ["write"],
    ["read", "read", "read", "read", "read", "read"],
]


def open_leg(folder: Path, corpus: Any = CORPUS, **options: Any) -> SparseLeg:
    return SparseLeg.open(folder, build_sparse(folder, corpus, **options))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "sparse").iterdir())
    }


def test_the_reference_says_what_was_built(tmp_path: Path) -> None:
    assert build_sparse(tmp_path, CORPUS, k1=0.9, b=0.4) == {
        "engine": "bm25s",
        "method": "lucene",
        "k1": 0.9,
        "b": 0.4,
        "delta": 0.5,
        "counts": {"passages": 5, "terms": 4, "postings": 7},
    }
    assert build_sparse(tmp_path, [], engine="rank-bm25")["method"] == "okapi"


def test_passages_without_a_common_term_are_no_hits(tmp_path: Path) -> None:
    hits = open_leg(tmp_path).search([["서울"], ["없음"], ["write", "없음"]], 4, None)
    assert hits.rows.tolist() == [[0, -1, -1, -1], [-1] * 4, [3, 1, -1, -1]]


def test_a_score_of_zero_is_a_hit(tmp_path: Path) -> None:
    """Robertson's idf is nothing for a term that most passages have."""
    leg = open_leg(tmp_path, [["a"], ["a"], ["a"], ["b"]], method="robertson")
    hits = leg.search([["a"]], 5, None)
    assert hits.rows.tolist() == [[0, 1, 2, NO_ROW, NO_ROW]]
    assert hits.scores[0, :3].tolist() == [0, 0, 0]


def test_terms_count_as_often_as_they_are_asked(tmp_path: Path) -> None:
    leg = open_leg(tmp_path)
    once = leg.search([["read"], ["write"]], 5, None).scores
    both = leg.search([["read", "write", "read"], ["write", "read", "read"]], 5, None)
    row = both.rows[0].tolist().index(1)
    reads = once[0][leg.search([["read"]], 5, None).rows[0].tolist().index(1)]
    writes = once[1][leg.search([["write"]], 5, None).rows[0].tolist().index(1)]
    assert both.scores[0][row] == pytest.approx(2 * reads + writes)
    assert np.array_equal(both.scores[0], both.scores[1])


def test_input_is_read_once_and_not_kept(tmp_path: Path) -> None:
    def passages() -> Iterator[list[str]]:
        yield from CORPUS

    assert np.array_equal(
        open_leg(tmp_path / "a", passages()).search([["검색"]], 3, None).scores,
        open_leg(tmp_path / "b", CORPUS).search([["검색"]], 3, None).scores,
    )


BUILD = """
import sys
from pathlib import Path
from rag.index.analyzer import make_analyzer
from rag.index.sparse import build_sparse
texts = [f"질문 {i % 7} 검색 색인 the Quick brown fox {i} jumps, k{i % 5} café" for i in range(200)]
terms = make_analyzer("cjk").batch(texts)
for engine in ("bm25s", "rank-bm25"):
    folder = Path(sys.argv[1]) / engine
    folder.mkdir()
    build_sparse(folder, (terms[i] for i in range(len(terms))), engine=engine)
"""


def test_the_hash_seed_changes_no_byte(tmp_path: Path) -> None:
    built = []
    for seed in ("0", "1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", BUILD, str(folder)], env=environment, check=True)
        built.append([digests(folder / engine) for engine in ("bm25s", "rank-bm25")])
    assert built[0] == built[1] == built[2]
    assert len(built[0][0]) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "lucene"}, "unknown engine 'lucene'"),
        ({"method": "bm26"}, "unknown BM25 method 'bm26'"),
        ({"engine": "rank-bm25", "method": "lucene"}, "rank-bm25 has no method 'lucene'"),
        ({"k1": -1.0}, "k1 must be 0 or more"),
        ({"b": 1.5}, "b must be at most 1"),
        ({"delta": float("nan")}, "delta must be 0 or more"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_sparse(tmp_path, CORPUS, **options)


def test_rank_bm25_refuses_a_large_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_bm25_engine, "MAX_PASSAGES", 4)
    with pytest.raises(ConfigurationError, match="above 4 use the engine bm25s"):
        build_sparse(tmp_path, CORPUS, engine="rank-bm25")


def test_searching_needs_neither_library() -> None:
    """A service opens a bundle with numpy and numba alone."""
    code = (
        "import sys\nfrom rag.index.sparse import SparseLeg\n"
        "assert not {'bm25s', 'rank_bm25'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- damage --------------------------------------------------------------------------------------

BM25S_FILES = ("indptr", "rows", "scores", "absent", "terms", "term_offsets")
RANK_FILES = ("passage_terms", "passage_counts", "passage_sizes", "terms", "term_offsets")


@pytest.mark.parametrize(
    ("engine", "name"),
    [("bm25s", n) for n in BM25S_FILES] + [("rank-bm25", n) for n in RANK_FILES],
)
def test_damage_is_named(tmp_path: Path, engine: str, name: str) -> None:
    reference = build_sparse(tmp_path, CORPUS, engine=engine)
    path = tmp_path / "sparse" / f"{name}.npy"
    whole = path.read_bytes()
    for damaged in (b"", b"junk", whole[:-1], whole[:40]):
        path.write_bytes(damaged)
        with pytest.raises(BundleCorrupt, match=f"{name}.npy"):
            SparseLeg.open(tmp_path, reference)
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(BundleCorrupt, match=f"{name}.npy"):
        SparseLeg.open(tmp_path, reference)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BundleCorrupt, match=f"{name}.npy"):
        SparseLeg.open(tmp_path, reference)
    path.unlink()
    with pytest.raises(BundleMissing, match=f"{name}.npy"):
        SparseLeg.open(tmp_path, reference)


@pytest.mark.parametrize(
    "bad", [[0, 2, 1, 3, 7], [1, 2, 3, 4, 7], [0, 2, 3, 4, 8], [0, 2, 9, 3, 7]]
)
def test_postings_that_point_elsewhere_are_refused(tmp_path: Path, bad: list[int]) -> None:
    """The compiled loops check no bounds."""
    reference = build_sparse(tmp_path, CORPUS)
    np.save(tmp_path / "sparse" / "indptr.npy", np.array(bad, dtype=np.int64))
    with pytest.raises(BundleCorrupt, match=r"indptr\.npy"):
        SparseLeg.open(tmp_path, reference)


def test_files_of_another_bundle_are_refused(tmp_path: Path) -> None:
    reference = build_sparse(tmp_path / "a", CORPUS)
    build_sparse(tmp_path / "b", CORPUS[:4])
    shutil.rmtree(tmp_path / "a" / "sparse")
    (tmp_path / "b" / "sparse").replace(tmp_path / "a" / "sparse")
    with pytest.raises(BundleMixed, match="postings"):
        SparseLeg.open(tmp_path / "a", reference)


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    reference = build_sparse(tmp_path, CORPUS) | {"engine": "tantivy"}
    with pytest.raises(ConfigurationError, match="tantivy"):
        SparseLeg.open(tmp_path, reference)


# ---- vocabulary ----------------------------------------------------------------------------------


@given(st.sets(st.text(max_size=6)), st.lists(st.text(max_size=6), max_size=8))
@settings(max_examples=100, deadline=None)
def test_vocabulary_finds_each_term_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, terms: set[str], others: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("vocabulary")
    ordered = sorted(terms)
    Vocabulary.write(folder, ordered)
    vocabulary = Vocabulary.open(folder)
    assert len(vocabulary) == len(terms)
    asked = [*ordered, *others, *(term[:-1] for term in ordered), *(t + "a" for t in ordered)]
    expected = [ordered.index(term) if term in terms else -1 for term in asked]
    assert vocabulary.ids(asked).tolist() == expected


@pytest.mark.parametrize("method", ["lucene", "bm25l"])
def test_a_term_of_half_weight_adds_half(tmp_path: Path, method: str) -> None:
    terms = [["shard", "queue"], ["queue", "queue"], ["index"]]
    plain = SparseLeg.open(tmp_path / "a", build_sparse(tmp_path / "a", terms, method=method))
    half = {"queue": 0.5}
    reference = build_sparse(
        tmp_path / "b", terms, weight=lambda term: half.get(term, 1.0), method=method
    )
    light = SparseLeg.open(tmp_path / "b", reference)
    for query, share in ((["queue"], 0.5), (["shard"], 1.0)):
        expected, found = (leg.search([query], 3, None) for leg in (plain, light))
        assert expected.rows.tolist() == found.rows.tolist()
        np.testing.assert_allclose(found.scores, expected.scores * np.float32(share), rtol=1e-6)
        np.testing.assert_allclose(
            light.query_terms([query]).idf, plain.query_terms([query]).idf * share, rtol=1e-6
        )
