"""What of a dense leg goes onto which GPUs, by the memory that they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rag.errors import ConfigurationError
from rag.index.dense.spec import Spec

Search = Literal["auto", "flat", "bundle"]
FLAT_BYTES = 2
"""Of one dimension: float16."""
TEMPORARY_BYTES = 1 << 30
"""On each device, of a search: scores and the best of them, or FAISS's scratch memory."""
PQ_BYTES = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 48, 56, 64, 96)
"""Sizes of codes that FAISS's GPU kernels have."""


class Plan(NamedTuple):
    """`search` 'flat' or 'bundle'; `sharded`: each device holds its part, else each holds all.
    `bytes_each` is what one device gives to it at most.
    """

    search: str
    sharded: bool
    bytes_each: int


def plan_gpu(
    spec: Spec,
    rows: int,
    free_bytes: Sequence[int],
    *,
    search: Search = "auto",
    cagra: bool = False,
) -> Plan:
    """How `rows` passages are searched on devices with so many free bytes each.

    'flat' scans everything, in float16: exact, and the fastest up to some ten million passages.
    'auto' takes it where it fits, else what the bundle has. Copies of everything on each device
    answer the most queries; where that does not fit, each device gets its part. `cagra`: FAISS has
    it, and the bundle's graph was built by it. Raises ConfigurationError where nothing fits.
    """
    least = min(free_bytes)
    sizes = {"flat": rows * spec.dimension * FLAT_BYTES}
    if gpu_problem(spec, cagra=cagra) is None:
        sizes["bundle"] = round(rows * spec.resident_bytes)
    if search != "auto":
        if search not in sizes:
            raise ConfigurationError(f"a GPU cannot search {spec.name}: {gpu_problem(spec)}")
        sizes = {search: sizes[search]}
    for name, size in sizes.items():
        if size + TEMPORARY_BYTES <= least:
            return Plan(name, False, size + TEMPORARY_BYTES)
    for name, size in sizes.items():
        part = -(-size // len(free_bytes)) + TEMPORARY_BYTES
        # A graph cannot be cut into parts.
        if part <= least and not (name == "bundle" and spec.kind == "hnsw"):
            return Plan(name, True, part)
    needed = min(sizes.values()) + TEMPORARY_BYTES
    raise ConfigurationError(
        f"{rows} passages need {needed} bytes of GPU memory, and {len(free_bytes)} devices have"
        f" {least} free each; use more devices, build a smaller index, or set RAG_DENSE_DEVICE=cpu"
    )


def gpu_problem(spec: Spec, *, cagra: bool = False) -> str | None:
    """Why FAISS cannot search the bundle's own index on a GPU, or None."""
    if spec.kind == "hnsw" and not cagra:
        return "only graphs that a GPU has built (CAGRA) run on one; use flat"
    if spec.storage == "pq4":
        return "four-bit codes are for CPUs; use flat"
    if spec.storage == "pq" and spec.numbers["pq_bytes"] not in PQ_BYTES:
        return f"its kernels have no codes of {spec.numbers['pq_bytes']} bytes; use flat"
    return None
