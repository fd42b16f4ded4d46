"""From a Spec to an empty FAISS index, trained where its kind needs it."""

from __future__ import annotations

from typing import Any

import faiss as _faiss
import numpy as np

from rag.errors import ConfigurationError
from rag.index.dense.spec import NO_REFINE, Spec
from rag.types import Float32

faiss: Any = _faiss  # its type stubs leave out much of what it has

QUANTIZERS = {
    "float16": faiss.ScalarQuantizer.QT_fp16,
    "int8": faiss.ScalarQuantizer.QT_8bit,
}
TRAIN_INT8 = 200_000
TRAIN_PER_LIST = 64
TRAIN_PQ = 65_536
PQ_CENTROIDS = 256
"""Of one byte; FAISS wants as many vectors to learn them from."""
METRIC = faiss.METRIC_INNER_PRODUCT


def new_index(spec: Spec, vectors: Float32, clustering: Any | None = None) -> Any:
    """The index that nominates, ready for `add`; trained on evenly spaced rows of `vectors`.

    `clustering` is what k-means assigns with, such as an index on GPUs; None is the CPU.
    """
    makers = {"flat": _flat, "hnsw": _hnsw, "ivf": _ivf}
    index = makers[spec.kind](spec)
    if clustering is not None and spec.kind == "ivf":
        index.clustering_index = clustering
    if not index.is_trained:
        train(index, vectors, _training_rows(spec))
    if clustering is not None and spec.kind == "ivf":
        index.clustering_index = None
    return index


def new_refinement(spec: Spec, vectors: Float32) -> Any | None:
    """The flat index that holds what nominees are scored by, ready for `add`; None without."""
    if spec.refine == NO_REFINE:
        return None
    index = _flat(Spec("flat", spec.dimension, spec.refine))
    if not index.is_trained:
        train(index, vectors, TRAIN_INT8)
    return index


def train(index: Any, vectors: Float32, rows: int) -> None:
    """Trains on at most `rows` rows, evenly spaced: the same every time."""
    quantized = isinstance(index, faiss.IndexIVFPQ | faiss.IndexIVFPQFastScan)
    least = PQ_CENTROIDS if quantized else 1
    if len(vectors) == 0:
        # Nothing to learn from: any values will do, since nothing will be stored.
        index.train(np.zeros((least, index.d), dtype=np.float32))
        return
    picked = np.unique(np.linspace(0, len(vectors) - 1, min(rows, len(vectors))).astype(np.int64))
    index.train(np.ascontiguousarray(vectors[np.resize(picked, max(least, len(picked)))]))


def describe(index: Any) -> dict[str, Any]:
    """What an index read from a file is, in the words of a reference; raises ConfigurationError
    for one that no Spec makes.
    """
    kind, storage = "flat", index
    if isinstance(index, faiss.IndexHNSW):
        kind, storage = "hnsw", faiss.downcast_index(index.storage)
    elif isinstance(index, faiss.IndexIVF):
        kind = "ivf"
    return {
        "kind": kind,
        "dimension": index.d,
        "metric": "inner_product" if index.metric_type == METRIC else "l2",
        "storage": _storage_of(storage),
    }


def _storage_of(index: Any) -> str:
    if isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat):
        return "float32"
    if isinstance(index, faiss.IndexIVFPQ):
        return "pq"
    if isinstance(index, faiss.IndexIVFPQFastScan):
        return "pq4"
    if isinstance(index, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer):
        for name, quantizer in QUANTIZERS.items():
            if index.sq.qtype == quantizer:
                return name
    raise ConfigurationError(f"a {type(index).__name__}")


def _flat(spec: Spec) -> Any:
    if spec.storage == "float32":
        return faiss.IndexFlatIP(spec.dimension)
    return faiss.IndexScalarQuantizer(spec.dimension, QUANTIZERS[spec.storage], METRIC)


def _hnsw(spec: Spec) -> Any:
    m = spec.numbers["m"]
    if spec.storage == "float32":
        index = faiss.IndexHNSWFlat(spec.dimension, m, METRIC)
    else:
        index = faiss.IndexHNSWSQ(spec.dimension, QUANTIZERS[spec.storage], m, METRIC)
    index.hnsw.efConstruction = spec.numbers["ef_construction"]
    index.hnsw.efSearch = spec.numbers["ef_search"]
    return index


def _ivf(spec: Spec) -> Any:
    lists, d = spec.numbers["lists"], spec.dimension
    coarse = faiss.IndexFlatIP(d)
    if spec.storage == "float32":
        index = faiss.IndexIVFFlat(coarse, d, lists, METRIC)
    elif spec.storage == "pq":
        index = faiss.IndexIVFPQ(coarse, d, lists, spec.numbers["pq_bytes"], 8, METRIC)
    elif spec.storage == "pq4":
        index = faiss.IndexIVFPQFastScan(coarse, d, lists, d // 2, 4, METRIC)
    else:
        index = faiss.IndexIVFScalarQuantizer(coarse, d, lists, QUANTIZERS[spec.storage], METRIC)
    index.own_fields = True
    coarse.this.disown()
    index.cp.spherical = True
    index.cp.max_points_per_centroid = TRAIN_PER_LIST
    index.cp.min_points_per_centroid = 1  # few rows are no reason to warn
    index.nprobe = spec.numbers["nprobe"]
    return index


def _training_rows(spec: Spec) -> int:
    if spec.kind != "ivf":
        return TRAIN_INT8
    return max(
        TRAIN_PER_LIST * spec.numbers["lists"], TRAIN_PQ if spec.storage in ("pq", "pq4") else 0
    )
