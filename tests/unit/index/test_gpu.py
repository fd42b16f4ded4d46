"""What of the GPU leg is not the GPU: plans, and the float16 scan with the CPU as its device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from rag.devices import NO_DRIVER, Driver
from rag.errors import ConfigurationError
from rag.index.dense import DenseLeg, build_dense, gpu_scan
from rag.index.dense import leg as leg_module
from rag.index.dense.factory import METRIC, new_index
from rag.index.dense.gpu import dense_device, faiss_lacks, scan_of
from rag.index.dense.gpu_plan import TEMPORARY_BYTES, Plan, gpu_problem, plan_gpu
from rag.index.dense.gpu_search import GpuIndex, wide_enough
from rag.index.dense.spec import make_spec
from rag.types import Float32, RowMask

GIB = 1 << 30


def unit(rows: int, seed: int = 0, dimension: int = 24) -> Float32:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def flat(folder: Path, vectors: Float32, **options: Any) -> DenseLeg:
    return DenseLeg.open(folder, build_dense(folder, vectors, **options))


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_float16_scan_gives_the_exact_hits(tmp_path: Path, devices: int, sharded: bool) -> None:
    vectors, queries = unit(6000), unit(30, seed=1)
    vectors[::5] = vectors[1]  # 1,200 passages that say the same
    queries[0] = vectors[1]
    leg = flat(tmp_path, vectors)
    scan = leg.with_nominator(scan_of(leg, ["cpu"] * devices, sharded=sharded))
    random = np.random.default_rng(2)
    for allowed in (None, random.random(6000) < 0.5, random.random(6000) < 0.12):
        for k in (1, 10, 100):
            truth, found = leg.search(queries, k, allowed), scan.search(queries, k, allowed)
            assert np.array_equal(found.rows, truth.rows)
            assert np.array_equal(found.scores, truth.scores)


def test_a_scan_in_several_blocks_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = unit(6000), unit(30, seed=1)
    leg = flat(tmp_path, vectors)
    monkeypatch.setattr(gpu_scan, "SCORES_BYTES", 2 * 30 * 700)
    monkeypatch.setattr(gpu_scan, "QUERIES_AT_ONCE", 7)
    scan = leg.with_nominator(scan_of(leg, ["cpu", "cpu"], sharded=True))
    for allowed in (None, np.arange(6000) % 9 == 0):
        truth, found = leg.search(queries, 300, allowed), scan.search(queries, 300, allowed)
        assert np.array_equal(found.rows, truth.rows)
        assert np.array_equal(found.scores, truth.scores)


def test_a_scan_that_cannot_decide_takes_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More passages of one score than are nominated: hits score the same, rows may be others."""
    vectors = unit(4000)
    vectors[500:] = vectors[0]
    leg = flat(tmp_path, vectors)
    monkeypatch.setattr(gpu_scan, "MOST", 2000)
    scan = scan_of(leg, ["cpu"], sharded=False)
    assert len(scan.nominate(vectors[:1], 10, 4000, None)[0]) == 2000
    hits = leg.with_nominator(scan).search(vectors[:1], 10, None)
    assert np.array_equal(hits.scores, leg.search(vectors[:1], 10, None).scores)


def test_a_scan_finds_what_a_filter_leaves_however_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a search on the CPU for it: nominees are the allowed rows, and no others."""
    vectors = unit(3000)
    leg = flat(tmp_path, vectors)
    monkeypatch.setattr(leg_module, "FEW", 0)
    scan = scan_of(leg, ["cpu"], sharded=False)
    asked: list[int] = []
    nominate = scan.nominate

    def counting(queries: Float32, depth: int, selected: int, allowed: RowMask | None) -> Any:
        asked.append(selected)
        return nominate(queries, depth, selected, allowed)

    monkeypatch.setattr(scan, "nominate", counting)
    moved = leg.with_nominator(scan)
    for kept in ([7], [1, 5, 2900], list(range(0, 3000, 100))):
        allowed = np.zeros(3000, dtype=bool)
        allowed[kept] = True
        truth, found = leg.search(vectors[:5], 20, allowed), moved.search(vectors[:5], 20, allowed)
        assert np.array_equal(found.rows, truth.rows)
        assert np.array_equal(found.scores, truth.scores)
    assert asked == [1, 3, 30]


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_a_device_gets_the_stored_vectors(tmp_path: Path, storage: str) -> None:
    leg = flat(tmp_path, unit(500), storage=storage)
    (parts,) = scan_of(leg, ["cpu", "cpu"], sharded=True).copies
    assert [(part.start, len(part.vectors)) for part in parts] == [(0, 250), (250, 250)]
    kept = np.concatenate([part.vectors.numpy() for part in parts]).astype(np.float32)
    assert np.abs(kept - leg.vectors(np.arange(500))).max() < 1e-3


def test_the_bundles_own_lists_keep_filters_and_order(tmp_path: Path) -> None:
    vectors, queries = unit(5000), unit(20, seed=3)
    leg = flat(tmp_path, vectors, kind="ivf", lists=40, nprobe=40, candidates=200)
    nominator = GpuIndex(leg.index, lambda _: faiss.SearchParametersIVF(nprobe=40), 200)
    moved = leg.with_nominator(nominator)
    for allowed in (None, np.arange(5000) % 3 == 0):
        truth, found = leg.search(queries, 20, allowed), moved.search(queries, 20, allowed)
        assert np.array_equal(found.rows, truth.rows)
        assert np.array_equal(found.scores, truth.scores)


def test_nominees_grow_with_what_the_filter_leaves_out() -> None:
    assert wide_enough(100, 1000, 1000) == 100
    assert wide_enough(100, 1000, 500) == 300
    assert wide_enough(100, 1000, 0) == 150_000


def test_the_plan_takes_a_scan_where_it_fits_and_shards_where_it_must() -> None:
    spec = make_spec(384, 10_000_000, kind="ivf", storage="int8")
    flat_bytes = 10_000_000 * 384 * 2  # float16
    assert plan_gpu(spec, 10_000_000, [80 * GIB]) == Plan(
        "flat", False, flat_bytes + TEMPORARY_BYTES
    )
    assert plan_gpu(spec, 10_000_000, [5 * GIB]).search == "bundle"
    assert plan_gpu(spec, 10_000_000, [7 * GIB]).search == "bundle"  # no room for the scores
    two = plan_gpu(spec, 10_000_000, [5 * GIB, 5 * GIB], search="flat")
    assert two == Plan("flat", True, flat_bytes // 2 + TEMPORARY_BYTES)
    assert not plan_gpu(spec, 10_000_000, [80 * GIB, 80 * GIB]).sharded
    with pytest.raises(ConfigurationError, match=r"need \d+ bytes of GPU memory, and 1 devices"):
        plan_gpu(spec, 10_000_000, [2 * GIB])


def test_what_cannot_run_on_a_gpu_says_why() -> None:
    pq4 = make_spec(384, 10**6, kind="ivf", storage="pq4")
    graph = make_spec(384, 10**6, kind="hnsw")
    odd = make_spec(384, 10**6, kind="ivf", storage="pq", pq_bytes=128)
    assert "four-bit codes" in str(gpu_problem(pq4))
    assert "CAGRA" in str(gpu_problem(graph))
    assert gpu_problem(graph, cagra=True) is None
    assert "no codes of 128 bytes" in str(gpu_problem(odd))
    assert plan_gpu(pq4, 10**6, [8 * GIB]).search == "flat"
    with pytest.raises(ConfigurationError, match="a GPU cannot search ivf pq4"):
        plan_gpu(pq4, 10**6, [8 * GIB], search="bundle")
    graph_plan = plan_gpu(graph, 10**6, [8 * GIB], search="bundle", cagra=True)
    assert graph_plan.search == "bundle"
    with pytest.raises(ConfigurationError, match="bytes of GPU memory"):
        plan_gpu(graph, 10**6, [GIB, GIB, GIB], search="bundle", cagra=True)


@pytest.mark.skipif(faiss_lacks() is None, reason="this FAISS can use a GPU")
def test_a_faiss_without_gpu_support_is_refused_by_name() -> None:
    driver = Driver((13, 0), 1)
    assert dense_device("auto", driver) == "cpu"
    with pytest.raises(ConfigurationError, match="the dense leg is to run on cuda, and this FAISS"):
        dense_device("cuda", driver)
    with pytest.raises(ConfigurationError, match="sees 0 CUDA devices"):
        dense_device("cuda", NO_DRIVER)


def test_lists_may_be_trained_elsewhere_and_stay_readable_here(tmp_path: Path) -> None:
    """With the CPU's flat index in the place of one on GPUs: the same lists, the same file."""
    vectors = unit(3000)
    spec = make_spec(24, 3000, kind="ivf", lists=30)
    faiss.omp_set_num_threads(1)  # sums of k-means in one order
    here, there = new_index(spec, vectors), new_index(spec, vectors, faiss.IndexFlatIP(24))
    for index in (here, there):
        index.add(vectors)
    asked = unit(20, seed=4)
    rows = [index.search(asked, 10)[1] for index in (here, there)]
    assert (rows[0] == rows[1]).mean() > 0.95
    faiss.write_index(there, str(tmp_path / "lists.faiss"))
    assert faiss.read_index(str(tmp_path / "lists.faiss")).ntotal == 3000


def test_a_graph_that_a_gpu_built_is_read_and_searched_on_a_cpu(tmp_path: Path) -> None:
    """CAGRA's form of HNSW: only its ground floor is searched."""
    vectors = unit(2000)
    reference = build_dense(tmp_path, vectors, kind="hnsw")
    graph = faiss.IndexHNSWCagra(24, 32, METRIC)
    graph.add(vectors)
    graph.base_level_only = True
    faiss.write_index(graph, str(tmp_path / "dense" / "index.faiss"))
    leg = DenseLeg.open(tmp_path, reference)
    assert isinstance(leg.index, faiss.IndexHNSWCagra)
    assert leg.search(vectors[:50], 1, None).rows[:, 0].tolist() == list(range(50))
    allowed = np.arange(2000) % 2 == 1
    assert (leg.search(vectors[:50], 5, allowed).rows % 2 == 1).all()
