"""What compiling the kernels ahead costs: the same calls through Numba in this process and through
the library of each target, in turns.

    python tests/bench/compiled_kernels.py [--rounds 40] [--bundle BUNDLE]

Prints microseconds of processor time a call, median over rounds, and the ratio to Numba. With
--bundle also the processor time of a process that imports the service and opens the bundle for
search, through Numba's filled cache and through the library. Needs the linker ld.
NUMBA_CPU_NAME=generic compares with code for any processor of the architecture.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rag.compiled.kernel import KERNELS, LIBRARY
from rag.compiled.library import TARGETS, Library, best_target
from rag.index import kernels
from rag.retrieval import kernels as feedback_kernels
from rag.retrieval.compile import build_library

Call = Callable[[], None]
STARTS = 5
ROWS, TERMS, WIDTH, LENGTH, CANDIDATES = 100_000, 50_000, 384, 60, 200


def cases() -> dict[str, tuple[Callable[..., None], list[Any]]]:
    """What one query of a collection of ROWS passages asks of each kernel that searches."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, TERMS + 1)
    lengths = np.minimum(ROWS // 4, 1 + share / share.sum() * ROWS * LENGTH).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.concatenate([np.sort(rng.choice(ROWS, n, replace=False)) for n in lengths])
    scores = rng.random(len(rows), dtype=np.float32)
    asked = np.array([40, 300, 2000, 9000], np.int64)
    words = sorted({f"term{n}".encode() for n in rng.integers(0, 10**7, TERMS)})
    blob = np.frombuffer(b"".join(words), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(w) for w in words])]).astype(np.int64)
    wanted = words[::9000]
    wanted_offsets = np.concatenate([[0], np.cumsum([len(w) for w in wanted])]).astype(np.int64)
    vectors = rng.standard_normal((CANDIDATES, WIDTH), dtype=np.float32)
    starts = np.arange(CANDIDATES + 1, dtype=np.int64) * LENGTH
    size = int(starts[-1])
    places = rng.permutation(CANDIDATES)
    terms = rng.integers(0, TERMS, size).astype(np.int32)
    floats = lambda *shape: rng.random(shape, dtype=np.float32)  # noqa: E731
    return {
        "find_terms": (
            kernels.find_terms,
            [
                blob, offsets, np.frombuffer(b"".join(wanted), np.uint8), wanted_offsets,
                np.zeros(len(wanted), np.int64),
            ],
        ),
        "search_postings": (
            kernels.search_postings,
            [
                indptr, rows.astype(np.int32), scores, asked, np.array([0, 4]),
                np.zeros(1, np.float32), np.zeros(0, np.bool_),
                np.full(ROWS, -np.inf, np.float32), np.zeros(ROWS, np.int32),
                np.zeros((1, 1000), np.int64), np.zeros((1, 1000), np.float32),
            ],
        ),
        "rank_nominees": (
            kernels.rank_nominees,
            [
                vectors, places, places, np.array([0, CANDIDATES]), vectors[:1].copy(), 2.0**20,
                np.zeros((1, 100), np.int64), np.zeros((1, 100), np.float32),
            ],
        ),
        "unite": (
            feedback_kernels.unite,
            [
                places[None, :100].copy(), places[None, 50:150].copy(), np.zeros(200, np.int64),
                np.zeros(2, np.int64),
            ],
        ),
        "fuse": (
            feedback_kernels.fuse,
            [
                vectors, places, starts[:-1].copy(), starts[1:].copy(), terms, floats(size),
                np.arange(CANDIDATES), np.array([0, CANDIDATES]), vectors[:1].copy(),
                np.array([0, 3]), np.array([5, 6, 7], np.int32), floats(3), floats(3),
                floats(1, 9) + np.float32(0.1), 5, np.ones(7), np.zeros((TERMS, 2), np.float32),
                np.zeros((1, CANDIDATES), np.int64), floats(1, CANDIDATES),
            ],
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    rounds = given.rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "library")
        build_library(path)
        targets = list(TARGETS)[list(TARGETS).index(best_target()) :]
        libraries = {target: Library.open(path, target) for target in targets}
        print("Numba compiles for", os.environ.get("NUMBA_CPU_NAME", "this processor"))
        print(
            "| Kernel | Numba |",
            " | ".join(targets),
            "|",
            " | ".join(f"{t} / Numba" for t in targets),
            "|",
        )
        print("|---|" + "--:|" * (1 + 2 * len(targets)))
        totals = np.zeros(1 + len(targets))
        for name, (function, arguments) in cases().items():
            kernel = next(k for k in KERNELS.values() if k.function.__name__ == name)
            ways = [function, *(library.function(kernel) for library in libraries.values())]
            spent = np.array([[_us(way, arguments) for way in ways] for _ in range(rounds)])
            ratios = np.median(spent[:, 1:] / spent[:, :1], axis=0)
            totals += np.median(spent, axis=0)
            _row(name, np.median(spent, axis=0), ratios)
        _row("all", totals, totals[1:] / totals[0])
        if given.bundle is not None:
            starts(Path(folder), path, given.bundle)


def starts(work: Path, library: Path, bundle: Path) -> None:
    """Processor time of STARTS starts each way, in turns, after one that fills caches."""
    leave = shutil.ignore_patterns("__pycache__", LIBRARY.name)
    for way in ("numba", "ahead"):
        package = work / way / "rag"
        shutil.copytree(LIBRARY.parents[1], package, ignore=leave)
    shutil.copytree(library, package / "compiled" / LIBRARY.name)
    spent = np.array(
        [[_start(work / way, bundle) for way in ("numba", "ahead")] for _ in range(STARTS + 1)]
    )[1:]
    numba, ahead = np.median(spent, axis=0)
    ratio = np.median(spent[:, 1] / spent[:, 0])
    print(f"\nA start: {numba:.2f} s through Numba's cache, {ahead:.2f} s ahead, {ratio:.2f} of it")


def _start(site: Path, bundle: Path) -> float:
    code = (
        "import sys, rag.service.app; from rag.retrieval.opening import open_retriever;"
        "open_retriever(sys.argv[1])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code, str(bundle.resolve())]
    subprocess.run(command, check=True, env=environment, cwd=site)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _us(function: Callable[..., None], arguments: list[Any], calls: int = 50) -> float:
    function(*arguments)
    start = time.process_time()
    for _ in range(calls):
        function(*arguments)
    return (time.process_time() - start) / calls * 1e6


def _row(name: str, spent: Any, ratios: Any) -> None:
    cells = [f"{value:.1f} µs" for value in spent] + [f"{ratio:.2f}" for ratio in ratios]
    print("|", " | ".join([name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
