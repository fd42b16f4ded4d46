"""POST /invocations on a bundle of millions of passages, its dense leg and its encoder on a device.

The queries are the sample's, each with a number that makes it new, and no vector is cached.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gpu_bundle import bundle, bundle_folder, index_of, rows_of
from gpu_floors import Floors, Line
from gpu_model import SAMPLE
from serving_load import Alone
from serving_processes import Served, rag_serve

from rag.devices import CPU

LIMIT_MS = 5.0
LEGS = ("hybrid", "dense", "sparse")
CLIENTS = 16


def service(options: argparse.Namespace, floors: Floors) -> Iterator[Line]:
    """One retrieval after the other, by leg, then several at once; makes the bundle if need be."""
    yield from bundle(options, floors)
    settings = {"RAG_DEVICE": options.device, "RAG_QUERY_CACHE_BYTES": "0"}
    if options.device == CPU:
        searches = ["the CPU's own search"]
    else:
        settings |= {
            "RAG_ENCODER_BACKEND": "torch",
            "RAG_ENCODER_PRECISION": "float16",
            "RAG_ENCODER_SPEEDUP": "graphs",
        }
        searches = ["flat"] if index_of(options) == "flat" else ["flat", "bundle"]
    for search in searches:
        own = {} if options.device == CPU else {"RAG_DENSE_GPU_SEARCH": search}
        with rag_serve(bundle_folder(options), **settings, **own) as served:
            name = f"{rows_of(options):,} passages, {search}"
            yield {"what": f"{name}: start to a 200 of /ping", "value": served.cold_start_s,
                   "unit": "s", "of": ""}  # fmt: skip
            yield from measure(served, name, 10 if options.small else 300)


def measure(served: Served, name: str, count: int) -> Iterator[Line]:
    one = Alone(served.port)
    for leg in LEGS:
        asked = bodies(count, leg)
        times = [one.ask(body)[0] for body in asked][count // 10 :]
        p50, p99 = np.percentile(times, [50, 99])
        stages = stage_times(served.port, bodies(count, leg, start=count)[:50])
        yield {
            "what": f"{name}: {leg}, one client, p50 (p99 {p99:.2f} ms; {stages})",
            "value": float(p50), "unit": "ms", "of": "the limit, ms", "floor": LIMIT_MS,
        }  # fmt: skip
    one.close()
    rate, p50, p99 = at_once(served.port, bodies(CLIENTS * count, "hybrid", start=3 * count))
    yield {"what": f"{name}: {CLIENTS} clients (p50 {p50:.2f} ms, p99 {p99:.2f} ms)",
           "value": rate, "unit": "requests/s", "of": ""}  # fmt: skip


def bodies(count: int, legs: str, start: int = 0) -> list[bytes]:
    """Requests, no two of one text."""
    lines = (SAMPLE.parent / "queries.jsonl").read_text("utf-8").splitlines()
    texts = itertools.cycle(q["text"] for q in map(json.loads, lines) if q["text"].isascii())
    return [
        json.dumps(
            {"query": f"{text} {start + i}", "mode": "retrieve", "top_k": 10, "legs": legs}
        ).encode()
        for i, text in zip(range(count), texts)  # noqa: B905 - texts do not end
    ]


def stage_times(port: int, asked: Sequence[bytes]) -> str:
    """The medians that replies state."""
    found = []
    for body in asked:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            found.append(json.load(response)["timings_ms"])
    stages = ("queue", "embed", "search")
    return ", ".join(f"{s} {np.median([times[s] for times in found]):.2f}" for s in stages)


def at_once(port: int, asked: Sequence[bytes]) -> tuple[float, float, float]:
    """Requests a second of CLIENTS connections that each ask one after another; p50, p99 in ms."""

    def client(number: int) -> list[float]:
        alone = Alone(port)
        times = [alone.ask(body)[0] for body in asked[number::CLIENTS]]
        alone.close()
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = list(itertools.chain.from_iterable(pool.map(client, range(CLIENTS))))
    spent = time.perf_counter() - began
    p50, p99 = np.percentile(times, [50, 99])
    return len(times) / spent, float(p50), float(p99)
