from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from rag.errors import BundleCorrupt, BundleMissing, BundleMixed, ConfigurationError, ModelFailure
from rag.index.dense import DenseLeg, build_dense
from rag.index.dense.build import FILE
from rag.index.dense.stored import SPARE
from rag.types import Float32


def unit(vectors: Any) -> Float32:
    values = np.asarray(vectors, dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def random_unit(rows: int, dimension: int = 16, seed: int = 0) -> Float32:
    return unit(np.random.default_rng(seed).normal(size=(rows, dimension)))


def open_leg(folder: Path, vectors: Float32, **options: Any) -> DenseLeg:
    return DenseLeg.open(folder, build_dense(folder, vectors, **options))


def test_the_reference_says_what_was_built(tmp_path: Path) -> None:
    vectors = random_unit(3)
    assert build_dense(tmp_path, vectors) == {
        "kind": "flat",
        "dimension": 16,
        "metric": "inner_product",
        "storage": "float32",
        "refine": "none",
    }
    assert build_dense(tmp_path, vectors, kind="hnsw", m=8) == {
        "kind": "hnsw",
        "dimension": 16,
        "metric": "inner_product",
        "storage": "float32",
        "refine": "none",
        "m": 8,
        "ef_construction": 200,
        "ef_search": 128,
    }


def test_many_equal_vectors_at_the_boundary_come_by_row(tmp_path: Path) -> None:
    """More ties than FAISS is first asked for; its own heap would return any of them."""
    vectors = random_unit(4000)
    twins = np.random.default_rng(1).permutation(4000)[: 20 * SPARE]
    vectors[twins] = vectors[17]
    leg = open_leg(tmp_path, vectors)
    same = sorted({17, *twins.tolist()})
    for k in (1, 5, 60, len(same)):
        assert leg.search(vectors[17:18], k, None).rows[0].tolist() == same[:k]
    allowed = np.ones(4000, dtype=np.bool_)
    allowed[same[::2]] = False
    assert leg.search(vectors[17:18], 30, allowed).rows[0].tolist() == same[1::2][:30]


def test_vectors_that_differ_by_rounding_tie(tmp_path: Path) -> None:
    """The same text embedded in two batches differs in the last bits: still one score."""
    vectors = random_unit(50)
    vectors[40] = np.nextafter(vectors[3], np.float32(2))
    vectors[41] = np.nextafter(vectors[3], np.float32(-2))
    hits = open_leg(tmp_path, vectors).search(vectors[3:4], 3, None)
    assert hits.rows[0].tolist() == [3, 40, 41]
    assert len(set(hits.scores[0].tolist())) == 1


def test_rounding_decides_at_the_boundary_too(tmp_path: Path) -> None:
    """Later rows score higher by less than the grid: FAISS nominates them, the rule wants the
    first ones."""
    vectors = random_unit(2000)
    later = np.arange(500, 900)
    vectors[later] = vectors[3] * np.linspace(1, 1 + 4e-7, 400, dtype=np.float32)[:, None]
    leg = open_leg(tmp_path, vectors)
    assert leg.search(vectors[3:4], 5, None).rows[0].tolist() == [3, 500, 501, 502, 503]
    allowed = np.arange(2000) != 500
    assert leg.search(vectors[3:4], 3, allowed).rows[0].tolist() == [3, 501, 502]


def test_scores_are_on_the_grid(tmp_path: Path) -> None:
    vectors = random_unit(300, 384)
    scores = open_leg(tmp_path, vectors).search(random_unit(4, 384, 1), 300, None).scores
    assert np.array_equal(scores, np.rint(scores.astype(np.float64) * 2**20) / 2**20)
    exact = np.sort(random_unit(4, 384, 1).astype(np.float64) @ vectors.T.astype(np.float64))
    assert np.abs(scores - exact[:, ::-1]).max() <= 2**-21 + 1e-12


def test_vectors_are_read_in_blocks_from_a_memory_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.index.dense.blocks.ROWS_AT_ONCE", 7)
    np.save(tmp_path / "vectors.npy", random_unit(100))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    leg = open_leg(tmp_path, mapped)
    assert leg.rows == 100
    assert leg.dimension == 16
    assert leg.search(random_unit(100), 1, None).rows[:, 0].tolist() == list(range(100))


def test_equal_vectors_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build_dense(tmp_path / name, random_unit(100))
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()


def test_a_graph_finds_nearly_all_and_filters_exactly(tmp_path: Path) -> None:
    vectors, queries = random_unit(3000), random_unit(20, seed=5)
    leg = open_leg(tmp_path / "hnsw", vectors, kind="hnsw", ef_search=200)
    flat = open_leg(tmp_path / "flat", vectors)
    random = np.random.default_rng(3)
    for share in (1.0, 0.5, 0.2, 0.05, 0.002):
        allowed = random.random(3000) < share
        truth, found = flat.search(queries, 10, allowed).rows, leg.search(queries, 10, allowed).rows
        assert allowed[found[found >= 0]].all()
        assert (found >= 0).sum() == min(10, allowed.sum()) * 20
        same = [np.isin(a, b).sum() for a, b in zip(truth, found, strict=True)]
        assert sum(same) >= 0.95 * truth.size
        if share < 0.1:
            assert np.array_equal(truth, found)


def test_a_graph_that_loses_its_way_falls_back_to_the_scan(tmp_path: Path) -> None:
    """Two far clusters joined by few links: with the near one filtered out, HNSW finds little."""
    rng = np.random.default_rng(0)
    near = unit(np.eye(1, 16) + rng.normal(scale=0.01, size=(900, 16)))
    far = unit(-np.eye(1, 16) + rng.normal(scale=0.01, size=(300, 16)))
    vectors = np.concatenate([near, far])
    leg = open_leg(tmp_path, vectors, kind="hnsw", m=4, ef_construction=8, ef_search=4)
    allowed = np.arange(1200) >= 900
    hits = leg.search(unit(np.eye(1, 16)), 250, allowed)
    assert (hits.rows >= 900).all()


def test_threads_can_be_bounded(tmp_path: Path) -> None:
    vectors = random_unit(64)
    reference = build_dense(tmp_path, vectors)
    before = faiss.omp_get_max_threads()
    try:
        DenseLeg.open(tmp_path, reference, threads=1).search(vectors, 2, None)
        assert faiss.omp_get_max_threads() == 1
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((2, 16)),
        np.zeros(16, dtype=np.float32),
        np.zeros((2, 15), dtype=np.float32),
        np.zeros((2, 16), dtype=np.float16),
    ],
)
def test_query_vectors_of_another_shape_are_refused(tmp_path: Path, vectors: Any) -> None:
    with pytest.raises(ValueError, match=r"float32 \(n, 16\)"):
        open_leg(tmp_path, random_unit(5)).search(vectors, 1, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    vectors = random_unit(5)
    leg = open_leg(tmp_path, vectors)
    broken = vectors.copy()
    broken[3, 2] = value
    with pytest.raises(ModelFailure, match="not finite"):
        leg.search(broken, 1, None)
    with pytest.raises(ModelFailure, match="row 3 is not finite"):
        build_dense(tmp_path, broken)


def test_bad_builds_are_refused(tmp_path: Path) -> None:
    for bad in (np.zeros((2, 4)), np.zeros(4, dtype=np.float32), np.zeros((2, 0), np.float32)):
        with pytest.raises(ValueError, match=r"float32 \(n, d\)"):
            build_dense(tmp_path, bad)
    with pytest.raises(ConfigurationError, match="unknown dense index 'lsh'"):
        build_dense(tmp_path, random_unit(2), kind="lsh")
    for kind, options in (("flat", {"m": 3}), ("hnsw", {"m": 0}), ("hnsw", {"links": 3})):
        with pytest.raises(ConfigurationError, match="is no option of"):
            build_dense(tmp_path, random_unit(2), kind=kind, **options)


def test_damage_is_named(tmp_path: Path) -> None:
    reference = build_dense(tmp_path, random_unit(50))
    path = tmp_path / FILE
    whole = path.read_bytes()
    for damaged in (b"", b"no index at all, but long enough to be one" * 9, whole[:-8], whole[:20]):
        path.write_bytes(damaged)
        with pytest.raises(BundleCorrupt, match=r"index\.faiss") as caught:
            DenseLeg.open(tmp_path, reference)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(BundleMissing, match=r"index\.faiss"):
        DenseLeg.open(tmp_path, reference)


def test_another_index_is_refused(tmp_path: Path) -> None:
    reference = build_dense(tmp_path, random_unit(50))
    with pytest.raises(BundleMixed, match="manifest says"):
        DenseLeg.open(tmp_path, reference | {"dimension": 17})
    build_dense(tmp_path, random_unit(50), kind="hnsw")
    with pytest.raises(BundleMixed, match="manifest says"):
        DenseLeg.open(tmp_path, reference)
    faiss.write_index(faiss.IndexFlatL2(16), str(tmp_path / FILE))
    with pytest.raises(BundleMixed, match="l2"):
        DenseLeg.open(tmp_path, reference)
    faiss.write_index(faiss.IndexLSH(16, 8), str(tmp_path / FILE))
    with pytest.raises(BundleMixed, match="IndexLSH"):
        DenseLeg.open(tmp_path, reference)
