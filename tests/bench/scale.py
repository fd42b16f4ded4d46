"""Search and opening at 10,000, 100,000 and 1,000,000 passages, without the encoder.

    python tests/bench/scale.py --work FOLDER --text FOLDER [--sizes N …] [--results FILE]

The dense leg is what `--index auto` chooses for clustered vectors (tests/bench/clustered.py), with
recall@10 of at least 0.95 against exact search. The sparse leg is of the texts below `--text`
(msdocs-en and msdocs-ko, JSON Lines), from the start again, as other passages, where there are too
few; its queries are titles. Legs are built once in `--work` and used again. Each size is measured
in a process of its own: files mapped, warm in the page cache, checksums not read.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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


def build(work: Path, text: Path, rows: int) -> None:
    """Both legs and the sample of queries, those that are not there yet."""
    folder = work / f"legs-{rows}"
    folder.mkdir(parents=True, exist_ok=True)
    path = work / f"vectors-{rows}.npy"
    if not path.exists():
        write_clustered(path, rows)
    vectors = np.load(path, mmap_mode="r")
    if not (folder / "sample.npz").exists():
        sample = take_sample(vectors, threads=usable_cpus())
        np.savez(folder / "sample.npz", queries=sample.queries, truth=sample.truth)
    if not (folder / "dense.json").exists():
        began = time.monotonic()
        built = build_chosen(folder, vectors, recall_target=RECALL, threads=usable_cpus())
        save(folder / "dense.json", began, reference=built.reference, measured=built.measured)
    if not (folder / "sparse.json").exists():
        began = time.monotonic()
        reference = build_sparse(folder, terms(text, rows))
        save(folder / "sparse.json", began, reference=reference)


def terms(text: Path, rows: int) -> Iterator[Sequence[str]]:
    """Each passage's terms; Hangul by bigrams, which need no Kiwi."""
    analyzer = make_analyzer("auto", korean="bigram")
    source = passages(text, rows)
    while part := list(itertools.islice(source, AT_ONCE)):
        yield from analyzer.batch([f"{p['title']}\n{p['text']}" for p in part])


def save(path: Path, began: float, **values: Any) -> None:
    values["build_s"] = round(time.monotonic() - began, 1)
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def measure(work: Path, text: Path, rows: int) -> dict[str, Any]:
    """What one size does, in this process."""
    folder = work / f"legs-{rows}"
    dense, sparse = (json.loads((folder / f"{leg}.json").read_text()) for leg in LIMITS_MS)
    kept = np.load(folder / "sample.npz")
    sample = Sample(kept["queries"], kept["truth"], "")
    titles = [p["title"] for p in itertools.islice(passages(text, rows), 0, rows, rows // QUERIES)]
    asked = make_analyzer("auto", korean="bigram").batch(titles)
    began = time.perf_counter()
    leg = DenseLeg.open(folder, dense["reference"], dense["measured"], threads=1)
    dense_open = time.perf_counter() - began
    began = time.perf_counter()
    other = SparseLeg.open(folder, sparse["reference"])
    sparse_open = time.perf_counter() - began
    vectors = sample.queries[:QUERIES]
    found: dict[str, Any] = {"rows": rows, "open_s": dense_open + sparse_open}
    found["recall_at_10"] = recall(leg, sample, 10)
    found["recall_at_100"] = recall(leg, sample, 100)
    found["index"] = leg.spec.name
    found["search"] = dense["measured"]["search"]
    for name, k in (("dense", 10), ("dense 100", 100)):
        found[name] = timed([partial(leg.search, q[None], k, None) for q in vectors])
    for name, k in (("sparse", 10), ("sparse 100", 100)):
        found[name] = timed([partial(other.search, [t], k, None) for t in asked])
    found["batch_ms"] = batched(leg, vectors)
    for name, built in (("dense", dense), ("sparse", sparse)):
        size = sum(p.stat().st_size for p in (folder / name).iterdir())
        found[f"{name} bytes"] = size / rows
        found[f"{name} build_s"] = built["build_s"]
    found["exact_ms"] = dense["measured"]["table"][0]["p50_ms"]
    return found


def timed(calls: Sequence[Any]) -> dict[str, float]:
    """Milliseconds of each call, after one round that warms."""
    for call in calls:
        call()
    seconds = []
    for call in calls:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return {"p50": float(p50), "p95": float(p95)}


def batched(leg: DenseLeg, vectors: Any) -> float:
    """Milliseconds of one query among 64, on one thread."""
    return timed([lambda: leg.search(vectors[:64], 100, None)] * 5)["p50"] / 64


def report(lines: Sequence[dict[str, Any]]) -> str:
    """Every figure as Markdown, with its limit and their ratio."""
    out = ["| passages | " + " | ".join(f"{line['rows']:,}" for line in lines) + " |"]
    out.append("|---|" + "--:|" * len(lines))

    def row(name: str, cells: Sequence[str]) -> None:
        out.append(f"| {name} | " + " | ".join(cells) + " |")

    row("dense index", [f"{line['index']}, {line['search']}" for line in lines])
    row("recall@10 / @100", [f"{x['recall_at_10']:.4f} / {x['recall_at_100']:.4f}" for x in lines])
    for leg, limit in LIMITS_MS.items():
        row(f"{leg} p50 / p95, k = 10, ms", [pair(line[leg]) for line in lines])
        row(f"· p50 of the limit, {limit:g} ms", [ratio(x[leg]["p50"], limit) for x in lines])
        row(f"{leg} p50 / p95, k = 100, ms", [pair(line[f"{leg} 100"]) for line in lines])
    row("dense, one of 64 at once, k = 100, ms", [f"{line['batch_ms']:.3f}" for line in lines])
    row("scan of float32, ms", [f"{line['exact_ms']:.1f}" for line in lines])
    row("opening both legs, s", [f"{line['open_s']:.3f}" for line in lines])
    row(f"· of the limit, {OPEN_LIMIT_S:g} s", [ratio(x["open_s"], OPEN_LIMIT_S) for x in lines])
    for leg in LIMITS_MS:
        row(f"{leg}, bytes of a passage", [f"{line[f'{leg} bytes']:,.0f}" for line in lines])
        row(f"{leg}, build s", [f"{line[f'{leg} build_s']:,.0f}" for line in lines])
    return "\n".join(out)


def pair(times: dict[str, float]) -> str:
    return f"{times['p50']:.3f} / {times['p95']:.3f}"


def ratio(value: float, limit: float) -> str:
    return f"{value / limit:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--results", type=Path, help="file to write the table to")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.work, options.text, options.one)))
        return
    for rows in options.sizes:
        build(options.work, options.text, rows)
    if options.build_only:
        return
    lines = []
    for rows in options.sizes:
        command = [sys.executable, __file__, "--one", str(rows)]
        command += ["--work", str(options.work), "--text", str(options.text)]
        lines.append(json.loads(subprocess.run(command, check=True, stdout=-1).stdout))
    table = report(lines)
    print(table)
    if options.results:
        options.results.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
