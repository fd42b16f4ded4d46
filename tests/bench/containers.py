"""The images in numbers: cold start, stop, memory, and latency by CPUs and bundle.

    python tests/bench/containers.py BUNDLE [BUNDLE …]

Each limit is named beside its figure. Requests are `retrieve`, top 10, by CLIENTS callers that each
wait for their reply, over queries made of the bundle's own words.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.ipc

from sagemaker_local.engine import Engine
from sagemaker_local.hosting import GRACE_S, Endpoint, endpoint

COLD_START_S = 4.0
IMAGE_MB = 900
CLIENTS = 4
SECONDS = 10.0
STARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--image", default="rag-inference")
    given = parser.parse_args()
    engine = Engine.find()
    size = json.loads(engine.call("image", "inspect", given.image))[0]["Size"] / 1e6
    print(f"image size                {size:8.0f} MB   limit {IMAGE_MB} ({size / IMAGE_MB:.2f})")
    for bundle in given.bundles:
        counts = json.loads((bundle / "manifest.json").read_bytes())["counts"]
        print(f"\n{counts['chunks']} passages")
        starts(engine, given.image, bundle)
        print("  CPUs  requests/s   p50 ms   p95 ms   memory MB")
        for cpus in (1, 2):
            print(f"  {cpus:4d}  {load(engine, given.image, bundle, cpus)}")


def starts(engine: Engine, image: str, bundle: Path) -> None:
    """Seconds from `run` to /ping 200, and from SIGTERM to the exit with idle callers."""
    cold, stops = [], []
    for _ in range(STARTS):
        began = time.monotonic()
        with endpoint(engine, image, bundle) as served:
            served.wait()
            cold.append(time.monotonic() - began)
            began = time.monotonic()
            code = served.stop()
            stops.append(time.monotonic() - began)
            if code:
                raise SystemExit(f"exit code {code}: {served.container.logs()}")
    for name, values, limit in (("cold start", cold, COLD_START_S), ("stop", stops, GRACE_S)):
        middle = statistics.median(values)
        print(
            f"  {name:22s}{middle:8.2f} s    limit {limit:g} ({middle / limit:.2f}),"
            f" of {STARTS}: {min(values):.2f} to {max(values):.2f}"
        )


def load(engine: Engine, image: str, bundle: Path, cpus: int) -> str:
    queries = made_queries(bundle)
    flags = ["--cpus", str(cpus)]
    with endpoint(engine, image, bundle, flags=flags) as served:
        served.wait()
        run_round(served, queries)  # warms up
        times = run_round(served, queries)
        memory = int(
            served.container.execute("cat", "/proc/1/status").split("VmRSS:")[1].split()[0]
        )
    times.sort()
    p50, p95 = times[len(times) // 2] * 1e3, times[int(len(times) * 0.95)] * 1e3
    return f"{len(times) / (SECONDS / 2):10.0f} {p50:8.1f} {p95:8.1f} {memory / 1000:11.0f}"


def run_round(served: Endpoint, queries: list[str]) -> list[float]:
    """Seconds of every request that CLIENTS callers made in SECONDS / 2."""
    times: list[float] = []
    end = time.monotonic() + SECONDS / 2
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda i: ask(served, queries, i, end, times), range(CLIENTS)))
    return times


def made_queries(bundle: Path) -> list[str]:
    """Six neighbouring words of a passage each, always the same ones."""
    source: Any = pyarrow.memory_map(str(bundle / "chunks.arrow"))
    texts = pyarrow.ipc.open_file(source).read_all()["text"]
    chosen = random.Random(7)
    found = []
    for _ in range(2000):
        words = texts[chosen.randrange(len(texts))].as_py().split()
        start = chosen.randrange(max(1, len(words) - 6))
        found.append(" ".join(words[start : start + 6])[:500] or "word")
    return found


_lock = threading.Lock()


def ask(served: Endpoint, queries: list[str], start: int, end: float, times: list[float]) -> None:
    own = []
    for place in range(start, len(queries) * 100, CLIENTS):
        began = time.monotonic()
        if began > end:
            break
        query = queries[place % len(queries)]
        # Told apart, so that no vector comes from the cache.
        body = json.dumps({"query": f"{query} {place}", "mode": "retrieve", "top_k": 10})
        served.invoke(body.encode())
        own.append(time.monotonic() - began)
    with _lock:
        times += own


if __name__ == "__main__":
    main()
