"""Search on a device: a float16 scan at every size, the bundle's own index at the smallest."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from clustered import DIMENSION, write_clustered
from gpu_floors import Floors, Line, seconds

from rag.devices import CPU, number_of
from rag.index.dense import DenseLeg, build_dense
from rag.index.dense.gpu import faiss_lacks, free_memory, on_gpu, scan_of
from rag.index.dense.gpu_build import has_cagra
from rag.index.dense.gpu_scan import GpuScan, Part
from rag.index.dense.sample import Sample, recall, take_sample

ROWS = (1_000_000, 10_000_000, 50_000_000)
BATCHES = (1, 8, 64, 1024)
AT_ONCE = 500_000


def search(options: argparse.Namespace, floors: Floors) -> Iterator[Line]:
    """A scan by size, and what bundles hold at the smallest, or at each of --own-rows."""
    if options.device != CPU and (lacking := faiss_lacks()):
        raise SystemExit(lacking)
    sizes = options.rows or ((2_000,) if options.small else ROWS)
    for rows in sizes:
        yield from scan(options, floors, rows)
    for rows in options.own_rows or sizes[:1]:
        yield from own_indexes(options, rows)


def own_indexes(options: argparse.Namespace, rows: int) -> Iterator[Line]:
    """Recall and time of what a bundle holds, and that hits are the CPU's."""
    work = Path(options.work)
    path = work / f"vectors-{rows}.npy"
    if not path.exists():
        write_clustered(path, rows)
    vectors = np.load(path, mmap_mode="r")
    sample = take_sample(vectors)
    gpus = [] if options.device == CPU else [number_of(options.device) or 0]
    kinds: dict[str, dict[str, Any]] = {"flat": {"kind": "flat"}}
    kinds["IVF float16"] = {"kind": "ivf", "storage": "float16"}
    if has_cagra():
        kinds["CAGRA"] = {"kind": "hnsw"}
    for name, wanted in kinds.items():
        folder = work / f"{name}-{rows}"
        reference = build_dense(folder, vectors, gpus=gpus, **wanted)
        leg = DenseLeg.open(folder, reference)
        moved = place(leg, options, "flat" if name == "flat" else "bundle")
        yield from compare(name, rows, leg, moved, sample, options.device)


def place(leg: DenseLeg, options: argparse.Namespace, how: Any) -> DenseLeg:
    """On the device; without one, a float16 scan on the CPU shows that the script runs."""
    if options.device == CPU:
        return leg.with_nominator(scan_of(leg, [CPU], sharded=False))
    free = free_memory([number_of(options.device) or 0])
    return on_gpu(leg, [options.device], free, search=how)[0]


def compare(
    name: str, rows: int, leg: DenseLeg, moved: DenseLeg, sample: Sample, device: str
) -> Iterator[Line]:
    """`moved` against exact search and against `leg` on the CPU."""
    here, there = leg.search(sample.queries, 10, None), moved.search(sample.queries, 10, None)
    same = float((here.rows == there.rows).mean())
    spent = seconds(lambda: moved.search(sample.queries[:1], 10, None), device)
    title = f"{name}, {rows:,} passages"
    found = recall(moved, sample, 10)
    yield {"what": f"{title}: recall@10", "value": found, "unit": "", "of": "exact search"}
    of = "the same leg on the CPU"
    yield {"what": f"{title}: same hits", "value": same, "unit": "", "of": of}
    yield {"what": f"{title}: one query", "value": spent * 1e3, "unit": "ms",
           "of": "the limit, ms", "floor": 5.0}  # fmt: skip


def scan(options: argparse.Namespace, floors: Floors, rows: int) -> Iterator[Line]:
    """A float16 scan of vectors made on the way, by the size of its batches.

    The floor of a batch is the longer of reading every vector once and multiplying with them.
    """
    nominator = GpuScan([[Part(options.device, 0, rows, DIMENSION, blocks(rows))]])
    queries = next(blocks(max(BATCHES)))
    for batch in BATCHES[:2] if options.small else BATCHES:
        asked = np.ascontiguousarray(queries[:batch])
        spent = seconds(lambda a=asked: nominator.nominate(a, 100, rows, None), options.device)  # type: ignore[misc]
        reading = rows * DIMENSION * 2 / floors.bandwidth
        multiplying = 2.0 * rows * DIMENSION * batch / floors.flops
        bound = "bandwidth" if reading > multiplying else "matrix"
        yield {"what": f"float16 scan of {rows:,}, {batch} at once", "value": batch / spent,
               "unit": "q/s", "of": f"the {bound} floor, queries/s",
               "floor": batch / max(reading, multiplying)}  # fmt: skip


def blocks(rows: int) -> Iterator[Any]:
    """Unit vectors; for the time of a scan their directions do not matter. Each block is the first
    with some signs turned, which takes a tenth of the time of drawing it.
    """
    rng = np.random.default_rng(rows)
    first = rng.standard_normal((min(AT_ONCE, rows), DIMENSION), dtype=np.float32)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    for start in range(0, rows, AT_ONCE):
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), DIMENSION)
        yield first[: rows - start] * signs
