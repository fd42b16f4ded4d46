"""Search and opening at 10,000, 100,000 and 1,000,000 passages, without the encoder.

    python tests/bench/scale.py --work FOLDER --text FOLDER [--sizes N …] [--legs LEG …]

The dense leg is what `--index auto` chooses for clustered vectors (tests/bench/clustered.py), with
recall@10 of at least 0.95 against exact search. The sparse leg is of the texts below `--text`
(msdocs-en and msdocs-ko, JSON Lines), from the start again, as other passages, where there are too
few; its queries are titles. Legs are built once in `--work` and used again. Each leg of each size
is measured in a process of its own: files mapped, warm in the page cache, checksums not read.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from clustered import write_clustered

from rag.index.analyzer import make_analyzer
from rag.index.dense import DenseLeg, build_chosen
from rag.index.dense.sample import Sample, recall, take_sample
from rag.index.sparse import SparseLeg, build_sparse
from rag.models.threads import usable_cpus

FILES = ("msdocs-en.jsonl.gz", "msdocs-ko.jsonl.gz")
RECALL = 0.95
LIMITS_MS = {"dense": 3.0, "sparse": 5.0}
OPEN_LIMIT_S = 2.0
QUERIES = 200
AT_ONCE = 512


def passages(text: Path, rows: int) -> Iterator[dict[str, Any]]:
    """`rows` passages, starting over where there are no more."""

    def once() -> Iterator[dict[str, Any]]:
        for name in FILES:
            with gzip.open(text / name, "rt", encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    return itertools.islice(itertools.chain.from_iterable(once() for _ in itertools.count()), rows)


def build(work: Path, text: Path, rows: int, legs: Sequence[str]) -> None:
    """The legs and the sample of queries, those that are not there yet."""
    folder = work / f"legs-{rows}"
    folder.mkdir(parents=True, exist_ok=True)
    if "dense" in legs and not (folder / "dense.json").exists():
        build_dense_leg(work, folder, rows)
    if "sparse" in legs and not (folder / "sparse.json").exists():
        began = time.monotonic()
        reference = build_sparse(folder, terms(text, rows))
        save(folder / "sparse.json", began, reference=reference)


def build_dense_leg(work: Path, folder: Path, rows: int) -> None:
    path = work / f"vectors-{rows}.npy"
    if not path.exists():
        write_clustered(path, rows)
    vectors = np.load(path, mmap_mode="r")
    sample = take_sample(vectors, threads=usable_cpus())
    np.savez(folder / "sample.npz", queries=sample.queries, truth=sample.truth)
    began = time.monotonic()
    built = build_chosen(folder, vectors, recall_target=RECALL, threads=usable_cpus())
    save(folder / "dense.json", began, reference=built.reference, measured=built.measured)


def analyse(texts: list[str]) -> list[list[str]]:
    """Their terms; Hangul by bigrams, which need no Kiwi."""
    return make_analyzer("cjk").batch(texts)


def terms(text: Path, rows: int) -> Iterator[Sequence[str]]:
    """Each passage's terms, analysed in as many processes as there are CPUs."""
    source = passages(text, rows)
    batches = iter(
        lambda: [f"{p['title']}\n{p['text']}" for p in itertools.islice(source, AT_ONCE)], []
    )
    with ProcessPoolExecutor(usable_cpus()) as pool:
        while window := list(itertools.islice(batches, 32)):
            for found in pool.map(analyse, window):
                yield from found


def save(path: Path, began: float, **values: Any) -> None:
    values["build_s"] = round(time.monotonic() - began, 1)
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def measure_dense(work: Path, rows: int) -> dict[str, Any]:
    folder = work / f"legs-{rows}"
    built = json.loads((folder / "dense.json").read_text(encoding="utf-8"))
    kept = np.load(folder / "sample.npz")
    sample = Sample(kept["queries"], kept["truth"], "")
    began = time.perf_counter()
    leg = DenseLeg.open(folder, built["reference"], built["measured"], threads=1)
    opened = time.perf_counter() - began
    vectors = sample.queries[:QUERIES]
    found = common(folder, "dense", rows, built) | {"dense open_s": opened}
    for k in (10, 100):
        found[f"recall {k}"] = recall(leg, sample, k)
        found[f"dense {k}"] = timed([partial(leg.search, q[None], k, None) for q in vectors])
    found["index"] = f"{leg.spec.name}, {built['measured']['search']}"
    found["batch_ms"] = timed([lambda: leg.search(vectors[:64], 100, None)] * 5)["p50"] / 64
    found["exact_ms"] = built["measured"]["table"][0]["p50_ms"]
    return found


def measure_sparse(work: Path, text: Path, rows: int) -> dict[str, Any]:
    folder = work / f"legs-{rows}"
    built = json.loads((folder / "sparse.json").read_text(encoding="utf-8"))
    titles = [p["title"] for p in itertools.islice(passages(text, rows), 0, rows, rows // QUERIES)]
    began = time.perf_counter()
    leg = SparseLeg.open(folder, built["reference"])
    opened = time.perf_counter() - began
    found = common(folder, "sparse", rows, built) | {"sparse open_s": opened}
    for k in (10, 100):
        found[f"sparse {k}"] = timed([partial(leg.search, [t], k, None) for t in analyse(titles)])
    return found


def common(folder: Path, leg: str, rows: int, built: dict[str, Any]) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in (folder / leg).iterdir())
    return {"rows": rows, f"{leg} bytes": size / rows, f"{leg} build_s": built["build_s"]}


def timed(calls: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each call, after one round that warms; `cpu` is the calling thread's own
    time, which other work on the machine lengthens less.
    """
    for call in calls:
        call()
    walls, cpus = [], []
    for call in calls:
        wall, cpu = time.perf_counter(), time.thread_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
    p50, p95 = np.percentile(walls, [50, 95]) * 1e3
    return {"p50": float(p50), "p95": float(p95), "cpu": float(np.median(cpus)) * 1e3}


def report(lines: Sequence[dict[str, Any]], legs: Sequence[str]) -> str:
    """Every figure as Markdown, with its limit and their ratio."""
    out = ["| passages | " + " | ".join(f"{line['rows']:,}" for line in lines) + " |"]
    out.append("|---|" + "--:|" * len(lines))

    def row(name: str, cell: Callable[[dict[str, Any]], str]) -> None:
        out.append(f"| {name} | " + " | ".join(cell(line) for line in lines) + " |")

    if "dense" in legs:
        row("dense index", lambda x: str(x["index"]))
        row("recall@10 / @100", lambda x: f"{x['recall 10']:.4f} / {x['recall 100']:.4f}")
        row("one of 64 at once, k = 100, ms", lambda x: f"{x['batch_ms']:.3f}")
        row("scan of float32 when it was built, ms", lambda x: f"{x['exact_ms']:.1f}")
    for leg in legs:
        limit = LIMITS_MS[leg]
        row(f"{leg} p50 / p95 / CPU p50, k = 10, ms", lambda x, leg=leg: pair(x[f"{leg} 10"]))
        of = f"· p50 of the limit, {limit:g} ms"
        row(of, lambda x, leg=leg, limit=limit: f"{x[f'{leg} 10']['p50'] / limit:.2f}")
        row(f"{leg} p50 / p95 / CPU p50, k = 100, ms", lambda x, leg=leg: pair(x[f"{leg} 100"]))
        row(f"{leg}, opening, s", lambda x, leg=leg: f"{x[f'{leg} open_s']:.3f}")
        row(
            f"· of the limit, {OPEN_LIMIT_S:g} s",
            lambda x, leg=leg: f"{x[f'{leg} open_s'] / OPEN_LIMIT_S:.2f}",
        )
        row(f"{leg}, bytes of a passage", lambda x, leg=leg: f"{x[f'{leg} bytes']:,.0f}")
        row(f"{leg}, build s", lambda x, leg=leg: f"{x[f'{leg} build_s']:,.0f}")
    return "\n".join(out)


def pair(times: dict[str, float]) -> str:
    return f"{times['p50']:.3f} / {times['p95']:.3f} / {times['cpu']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--legs", nargs="+", choices=list(LIMITS_MS), default=list(LIMITS_MS))
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.legs == ["dense"]:
            print(json.dumps(measure_dense(options.work, options.one)))
        else:
            print(json.dumps(measure_sparse(options.work, options.text, options.one)))
        return
    for rows in options.sizes:
        build(options.work, options.text, rows, options.legs)
    if options.build_only:
        return
    lines = []
    for rows in options.sizes:
        line: dict[str, Any] = {}
        for leg in options.legs:
            command = [sys.executable, __file__, "--one", str(rows), "--legs", leg]
            command += ["--work", str(options.work), "--text", str(options.text)]
            line |= json.loads(subprocess.run(command, check=True, stdout=-1).stdout)
        lines.append(line)
    print(report(lines, options.legs))


if __name__ == "__main__":
    main()
