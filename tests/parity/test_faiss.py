"""The dense leg against plain numpy, on more rows than one block of FAISS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.index.dense import DenseLeg, build_dense


@pytest.mark.parametrize("share", [None, 0.5, 0.01])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_flat_equals_brute_force(tmp_path: Path, share: float | None, queries: int) -> None:
    rng = np.random.default_rng(queries)
    vectors = rng.normal(size=(5000, 64)).astype(np.float32)
    vectors[rng.integers(0, 5000, 2000)] = vectors[:50].repeat(40, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors[rng.integers(0, 5000, queries)]
    allowed = None if share is None else rng.random(5000) < share
    leg = DenseLeg.open(tmp_path, build_dense(tmp_path, vectors))
    hits = leg.search(asked, 100, allowed)

    products = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    scores = (np.rint(products * 2**20) / 2**20).astype(np.float32)
    rows = np.arange(5000) if allowed is None else np.flatnonzero(allowed)
    for i in range(queries):
        order = rows[np.lexsort((rows, -scores[i, rows]))][:100]
        assert hits.rows[i, : len(order)].tolist() == order.tolist()
        assert np.array_equal(hits.scores[i, : len(order)], scores[i, order])
        assert (hits.rows[i, len(order) :] == -1).all()
