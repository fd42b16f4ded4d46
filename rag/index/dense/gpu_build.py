"""Building on GPUs what a CPU reads afterwards: lists trained and filled, graphs by CAGRA.

CAGRA: Ootomo et al., "CAGRA: Highly Parallel Graph Construction and Approximate Nearest Neighbor
Search for GPUs", ICDE 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rag.errors import ConfigurationError
from rag.index.dense.factory import METRIC, faiss
from rag.index.dense.gpu_plan import gpu_problem
from rag.index.dense.spec import Spec
from rag.types import Float32

ROWS_AT_ONCE = 262_144


def clustering_index(dimension: int, gpus: Sequence[int]) -> Any:
    """What k-means assigns with: copies on every GPU, so that each takes its share of the rows."""
    return faiss.index_cpu_to_gpus_list(faiss.IndexFlatIP(dimension), gpus=list(gpus))


def fill_lists(index: Any, spec: Spec, vectors: Float32, gpu: int) -> Any | None:
    """A trained IVF index with all of `vectors`, assigned and encoded on a GPU; None where FAISS
    has no GPU form of it, so that the CPU is to add them.
    """
    if gpu_problem(spec) is not None:
        return None
    resources = faiss.StandardGpuResources()
    copied = faiss.index_cpu_to_gpu(resources, gpu, index)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        copied.add(np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE]))
    filled = faiss.index_gpu_to_cpu(copied)
    filled.nprobe = spec.numbers["nprobe"]
    return filled


def has_cagra() -> bool:
    """Whether this FAISS is built with cuVS."""
    return hasattr(faiss, "GpuIndexCagra")


def build_graph(spec: Spec, vectors: Float32, gpu: int) -> Any:
    """The graph of float32 (n, d) vectors, as an HNSW index that only has a ground floor.

    Raises ConfigurationError for a storage that CAGRA cannot hand to the CPU.
    """
    if spec.storage != "float32":
        raise ConfigurationError(
            f"a graph built on a GPU stores float32, not {spec.storage}; leave the storage out, or"
            " build on the CPU"
        )
    m = spec.numbers["m"]
    config = faiss.GpuIndexCagraConfig()
    config.device = gpu
    config.graph_degree = 2 * m
    config.intermediate_graph_degree = 4 * m
    resources = faiss.StandardGpuResources()
    graph = faiss.GpuIndexCagra(resources, spec.dimension, METRIC, config)
    graph.train(np.ascontiguousarray(vectors))
    index = faiss.IndexHNSWCagra(spec.dimension, m, METRIC)
    index.base_level_only = True
    graph.copyTo(index)
    index.hnsw.efSearch = spec.numbers["ef_search"]
    return index
