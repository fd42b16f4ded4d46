"""Vectors to the dense leg's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import ModelFailure
from rag.index.dense import gpu_build
from rag.index.dense.blocks import blocks
from rag.index.dense.factory import faiss, new_index, new_refinement
from rag.index.dense.spec import Spec, make_spec
from rag.types import Float32

FILE = Path("dense") / "index.faiss"
REFINEMENT = Path("dense") / "refine.faiss"


def build_dense(
    folder: Path,
    vectors: Float32,
    *,
    threads: int | None = None,
    gpus: Sequence[int] = (),
    **options: Any,
) -> dict[str, Any]:
    """Writes `folder/dense/index.faiss` from float32 (n, d) unit vectors; returns its reference.

    With refinement, `folder/dense/refine.faiss` too. `vectors` may be a memory map; it is read in
    blocks. `options` are those of `make_spec`. Raises ConfigurationError for a kind or option that
    does not exist, ValueError for an array of another shape or type, ModelFailure for values that
    are not finite.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"vectors must be float32 (n, d), got {vectors.dtype} {vectors.shape}")
    spec = make_spec(vectors.shape[1], len(vectors), **options)
    write_dense(folder, vectors, spec, threads=threads, gpus=gpus)
    return spec.reference()


def write_dense(
    folder: Path,
    vectors: Float32,
    spec: Spec,
    *,
    threads: int | None = None,
    gpus: Sequence[int] = (),
) -> None:
    """Writes the files of `spec`, in place of those that may be there.

    On `gpus` lists are trained and filled, and float32 graphs built where FAISS has CAGRA.
    """
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    check_finite(vectors)
    refinement = new_refinement(spec, vectors)
    index = _on_gpus(spec, vectors, gpus) if gpus else None
    if index is None:
        index = new_index(spec, vectors)
    for each in (index, refinement):
        # What a GPU has built holds all of them already.
        if each is not None and each.ntotal == 0:
            _add(each, vectors)
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(folder / FILE))
    (folder / REFINEMENT).unlink(missing_ok=True)
    if refinement is not None:
        faiss.write_index(refinement, str(folder / REFINEMENT))


def _on_gpus(spec: Spec, vectors: Float32, gpus: Sequence[int]) -> Any | None:
    """As much of the index as GPUs can do; None for what they cannot."""
    if spec.kind == "hnsw" and spec.storage == "float32" and gpu_build.has_cagra():
        return gpu_build.build_graph(spec, vectors, gpus[0])
    if spec.kind != "ivf":
        return None
    index = new_index(spec, vectors, gpu_build.clustering_index(spec.dimension, gpus))
    filled = gpu_build.fill_lists(index, spec, vectors, gpus[0])
    return index if filled is None else filled


def _add(index: Any, vectors: Float32) -> None:
    for _, block in blocks(vectors):
        index.add(block)


def check_finite(vectors: Float32) -> None:
    """Raises ModelFailure naming the first row that holds NaN or infinity."""
    for start, block in blocks(vectors):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            bad = start + int(np.argmin(finite))
            raise ModelFailure(f"the vector of row {bad} is not finite; the encoder failed on it")
