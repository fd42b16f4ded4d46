"""What both legs promise, run over every engine of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.errors import ModelFailure
from rag.index.dense import DenseLeg, build_dense, gpu, gpu_build
from rag.index.dense.build import FILE
from rag.index.dense.factory import METRIC
from rag.index.sparse import SparseLeg, build_sparse
from rag.types import NO_ROW, Hits, RowMask

ROWS = 120
WORDS = ["검색", "색인", "서울", "read", "write", "index", "query", "𠀀"]
rng = np.random.default_rng(7)


Build = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A leg over ROWS rows, queries for it, and the true score of every row for each of them
    (-inf where the row is no hit)."""

    leg: Any
    queries: Any
    truth: np.ndarray[Any, np.dtype[np.float32]]
    exact: bool = True

    def search(self, picked: Sequence[int], k: int, allowed: RowMask | None = None) -> Hits:
        queries = self.queries
        chosen = queries[list(picked)] if isinstance(queries, np.ndarray) else None
        if chosen is None:
            chosen = [queries[i] for i in picked]
        hits: Hits = self.leg.search(chosen, k, allowed)
        return hits


def expected(scores: Any, k: int, allowed: RowMask) -> tuple[list[int], list[float]]:
    """By sorting: the tie rule and nothing else."""
    rows = [r for r in range(len(scores)) if allowed[r] and scores[r] > -np.inf]
    rows = sorted(rows, key=lambda r: (-scores[r], r))[:k]
    padding = k - len(rows)
    found = [float(scores[r]) for r in rows]
    return rows + [NO_ROW] * padding, found + [-np.inf] * padding


def passages() -> list[list[str]]:
    """Few words and many repeats: plenty of ties; some passages are empty."""
    made = [list(rng.choice(WORDS[:7], size=rng.integers(0, 5))) for _ in range(ROWS // 2)]
    return made + made[::-1]


def sparse_case(folder: Path, **options: Any) -> Case:
    corpus = passages()
    leg = SparseLeg.open(folder, build_sparse(folder, corpus, **options))
    queries = [["검색"], ["read", "서울", "read"], WORDS, ["𠀀"], [], ["index", "색인"]]
    truth = np.full((len(queries), ROWS), -np.inf, dtype=np.float32)
    for i, query in enumerate(queries):
        for row in range(ROWS):  # one row allowed at a time: no ranking involved
            if set(query) & set(corpus[row]):
                hits = leg.search([query], 1, np.arange(ROWS) == row)
                assert hits.rows[0, 0] == row
                truth[i, row] = hits.scores[0, 0]
    return Case(leg, queries, truth)


DENSE: dict[str, dict[str, Any]] = {
    "flat": {"kind": "flat"},
    "flat float16": {"kind": "flat", "storage": "float16"},
    "flat int8": {"kind": "flat", "storage": "int8"},
    "hnsw": {"kind": "hnsw", "ef_search": ROWS},
    "hnsw float16": {"kind": "hnsw", "ef_search": ROWS, "storage": "float16"},
    "hnsw int8": {"kind": "hnsw", "ef_search": ROWS, "storage": "int8"},
    "hnsw int8 alone": {"kind": "hnsw", "ef_search": ROWS, "storage": "int8", "refine": "none"},
    "ivf": {"kind": "ivf", "lists": 6, "nprobe": 6, "candidates": ROWS},
    "ivf int8": {"kind": "ivf", "lists": 6, "storage": "int8", "refine": "float32"},
    "ivf int8 alone": {"kind": "ivf", "lists": 6, "storage": "int8", "refine": "none"},
    "ivf pq4": {"kind": "ivf", "lists": 6, "nprobe": 6, "candidates": ROWS, "storage": "pq4"},
    "ivf pq": {"kind": "ivf", "lists": 6, "nprobe": 6, "candidates": ROWS, "storage": "pq"},
    "ivf pq alone": {"kind": "ivf", "lists": 3, "storage": "pq", "refine": "none"},
}


def dense_case(folder: Path, build: Build = build_dense, **options: Any) -> Case:
    vectors = rng.normal(size=(ROWS // 3, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.concatenate([vectors, vectors[::-1], vectors])  # every vector three times
    leg = DenseLeg.open(folder, build(folder, vectors, **options))
    queries = np.concatenate([vectors[:4], -vectors[:2], rng.normal(size=(2, 24))])
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    kept = leg.vectors(np.arange(ROWS))
    some = np.array([7, 0, 7, ROWS - 1])
    held, places = leg.located_vectors(some)
    assert np.array_equal(held[places], kept[some])
    with pytest.raises(IndexError, match="rows must lie in"):
        leg.located_vectors(np.array([0, ROWS]))
    assert np.abs(kept - vectors).max() < (0.2 if options.get("refine") == "none" else 0.01)
    truth = np.rint(queries.astype(np.float64) @ kept.T.astype(np.float64) * 2**20) / 2**20
    return Case(leg, queries, truth.astype(np.float32), exact=options["kind"] == "flat")


def saved_cagra(folder: Path, vectors: Any, **options: Any) -> dict[str, Any]:
    """A bundle's HNSW index in the form that CAGRA's is saved in: only the ground floor is
    searched, from entry points that are drawn. What links it has is the CPU's work here.
    """
    reference = build_dense(folder, vectors, **options)
    index = faiss.IndexHNSWCagra(vectors.shape[1], options["m"], METRIC)
    index.hnsw.efConstruction = reference["ef_construction"]
    index.hnsw.efSearch = reference["ef_search"]
    index.add(vectors)
    index.base_level_only = True
    faiss.write_index(index, str(folder / FILE))
    return reference


def saved_cagra_case(folder: Path) -> Case:
    case = dense_case(folder, saved_cagra, **CAGRA)
    assert isinstance(case.leg.index, faiss.IndexHNSWCagra)
    assert case.leg.index.base_level_only
    return case


def gpu_case(folder: Path, search: str, **options: Any) -> Case:
    """The same leg on the first GPU."""
    if lacking := gpu.faiss_lacks():
        pytest.skip(lacking)
    case = dense_case(folder, **options)
    leg, plan = gpu.on_gpu(case.leg, ["cuda:0"], gpu.free_memory([0]), search=search)  # type: ignore[arg-type]
    assert plan.search == search
    return replace(case, leg=leg, exact=search == "flat")


def gpu_built_cagra(folder: Path) -> Case:
    """The graph that a GPU has built."""
    if lacking := gpu.faiss_lacks():
        pytest.skip(lacking)
    if not gpu_build.has_cagra():
        pytest.skip(f"this FAISS ({faiss.__version__}) has no CAGRA; install faiss-gpu-cuvs")
    case = dense_case(folder, gpus=[0], **CAGRA)
    assert isinstance(case.leg.index, faiss.IndexHNSWCagra)
    return case


def gpu_searched_cagra(folder: Path) -> Case:
    """The same graph, searched there too."""
    case = gpu_built_cagra(folder)
    leg, plan = gpu.on_gpu(case.leg, ["cuda:0"], gpu.free_memory([0]), search="bundle")
    assert plan.search == "bundle"
    return replace(case, leg=leg)


def scan_case(folder: Path, devices: int, *, sharded: bool) -> Case:
    """A GPU's float16 scan, with the CPU as its device."""
    case = dense_case(folder, kind="flat")
    scan = gpu.scan_of(case.leg, ["cpu"] * devices, sharded=sharded)
    return replace(case, leg=case.leg.with_nominator(scan))


CAGRA: dict[str, Any] = {"kind": "hnsw", "m": 16, "ef_search": ROWS}
GPU: dict[str, tuple[str, dict[str, Any]]] = {
    "cuda flat": ("flat", DENSE["flat"]),
    "cuda flat of hnsw int8": ("flat", DENSE["hnsw int8"]),
    "cuda ivf": ("bundle", DENSE["ivf"]),
    "cuda ivf int8": ("bundle", {**DENSE["ivf int8"], "nprobe": 6}),
}
CASES = {
    "bm25s": lambda folder: sparse_case(folder),
    "bm25s/bm25+": lambda folder: sparse_case(folder, method="bm25+", delta=1.0),
    "bm25s/robertson": lambda folder: sparse_case(folder, method="robertson"),
    "rank-bm25": lambda folder: sparse_case(folder, engine="rank-bm25"),
    **{name: partial(dense_case, **options) for name, options in DENSE.items()},
    "scan": partial(scan_case, devices=1, sharded=False),
    "scan of two shards": partial(scan_case, devices=2, sharded=True),
    "scan of two copies": partial(scan_case, devices=2, sharded=False),
    "cagra as saved": saved_cagra_case,
    "cuda cagra, searched on the CPU": gpu_built_cagra,
    "cuda cagra": gpu_searched_cagra,
    **{name: partial(gpu_case, search=how, **options) for name, (how, options) in GPU.items()},
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    made: Case = CASES[request.param](tmp_path_factory.mktemp("leg"))
    assert made.leg.rows == ROWS
    return made


MASKS = st.one_of(
    st.none(),
    st.lists(st.booleans(), min_size=ROWS, max_size=ROWS).map(np.array),
    st.integers(0, ROWS - 1).map(lambda row: np.arange(ROWS) == row),
    st.sets(st.integers(0, ROWS - 1), max_size=8).map(lambda s: np.isin(np.arange(ROWS), list(s))),
)


@given(st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_hits_are_the_best_allowed_rows_in_order(case: Case, data: st.DataObject) -> None:
    """Filters, the tie rule, clamping and padding at once: everything equals a plain sort."""
    picked = data.draw(st.lists(st.integers(0, len(case.truth) - 1), max_size=4))
    k = data.draw(st.sampled_from([1, 2, 3, 10, ROWS - 1, ROWS, ROWS + 30]))
    mask = data.draw(MASKS)
    hits = case.search(picked, k, mask)
    assert hits.rows.shape == hits.scores.shape == (len(picked), k)
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int64, np.float32)
    allowed = np.ones(ROWS, dtype=np.bool_) if mask is None else mask
    for i, query in enumerate(picked):
        rows, scores = expected(case.truth[query], k, allowed)
        if case.exact:
            assert hits.rows[i].tolist() == rows
            assert hits.scores[i].tolist() == scores
        else:
            check_approximate(hits.rows[i], hits.scores[i], case.truth[query], k, allowed)


def check_approximate(rows: Any, scores: Any, truth: Any, k: int, allowed: RowMask) -> None:
    """A graph may miss rows; what it finds is allowed, truly scored, in order, and enough."""
    found = rows[rows != NO_ROW]
    assert len(found) == min(k, int(allowed.sum()))
    assert len(set(found.tolist())) == len(found)
    assert allowed[found].all()
    assert scores[: len(found)].tolist() == truth[found].tolist()
    assert found.tolist() == sorted(found, key=lambda r: (-truth[r], r))
    assert (rows[len(found) :] == NO_ROW).all()
    assert np.isneginf(scores[len(found) :]).all()


def test_a_smaller_k_is_a_prefix(case: Case) -> None:
    everything = range(len(case.truth))
    deepest = case.search(everything, 90)
    for k in (0, 1, 5, 40, 89):
        hits = case.search(everything, k)
        assert np.array_equal(hits.rows, deepest.rows[:, :k])
        assert np.array_equal(hits.scores, deepest.scores[:, :k])


def test_one_query_at_a_time_gives_the_same(case: Case) -> None:
    """FAISS takes other code paths for 20 queries and more."""
    many = list(range(len(case.truth))) * 8
    together = case.search(many, 25)
    for i, query in enumerate(many):
        alone = case.search([query], 25)
        assert np.array_equal(alone.rows[0], together.rows[i])
        assert np.array_equal(alone.scores[0], together.scores[i])


def test_no_queries_and_nothing_allowed(case: Case) -> None:
    assert case.search([], 5).rows.shape == (0, 5)
    hits = case.search([0, 1], 5, np.zeros(ROWS, dtype=np.bool_))
    assert (hits.rows == NO_ROW).all()
    assert np.isneginf(hits.scores).all()


def test_a_read_only_or_strided_mask_works(case: Case) -> None:
    mask = np.arange(ROWS) % 2 == 0
    wide = np.repeat(mask, 2)[::2]
    mask.setflags(write=False)
    assert np.array_equal(case.search([0], 9, mask).rows, case.search([0], 9, wide).rows)


def test_bad_arguments_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="k must be 0 or more"):
        case.search([0], -1)
    for mask in (np.ones(ROWS - 1, dtype=np.bool_), np.ones(ROWS, dtype=np.int64)):
        with pytest.raises(ModelFailure, match="row mask"):
            case.search([0], 3, mask)


def test_threads_do_not_disturb_each_other(case: Case) -> None:
    everything = range(len(case.truth))
    mask = np.arange(ROWS) % 3 == 0
    alone = case.search(everything, 20), case.search(everything, 20, mask)
    wrong: list[int] = []

    def search(number: int) -> None:
        for _ in range(40):
            masked = number % 2
            hits = case.search(everything, 20, mask if masked else None)
            if not np.array_equal(hits.rows, alone[masked].rows):
                wrong.append(number)

    threads = [threading.Thread(target=search, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["bm25s", "rank-bm25"])
def test_an_empty_sparse_leg(tmp_path: Path, name: str) -> None:
    for corpus in ([], [[], []]):
        leg = SparseLeg.open(tmp_path, build_sparse(tmp_path, corpus, engine=name))
        assert leg.rows == len(corpus)
        hits = leg.search([["검색"], []], 3, None)
        assert hits.rows.tolist() == [[NO_ROW] * 3] * 2


@pytest.mark.parametrize("name", DENSE)
def test_an_empty_dense_leg(tmp_path: Path, name: str) -> None:
    reference = build_dense(tmp_path, np.zeros((0, 8), dtype=np.float32), **DENSE[name])
    leg = DenseLeg.open(tmp_path, reference)
    hits = leg.search(np.ones((2, 8), dtype=np.float32), 3, None)
    assert leg.rows == 0
    assert hits.rows.tolist() == [[NO_ROW] * 3] * 2
