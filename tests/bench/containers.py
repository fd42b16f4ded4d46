"""The service's image in numbers: size, cold start, stop, and the table of sizes in
docker/README.md, which is latency and memory by passages and CPUs.

    python tests/bench/containers.py BUNDLE [BUNDLE …] [--write]

Requests are `retrieve`, top 10, by CLIENTS callers that each wait for their reply, over queries
made of the bundle's own words, none twice; the callers run on the same machine. Without --write
the tables are only printed; with it they also go into docker/README.md and results/containers.md.
Large bundles come from serving_bundle.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.ipc

from rag.index.fetching import locate
from sagemaker_local.engine import Engine
from sagemaker_local.hosting import GRACE_S, Endpoint, endpoint

COLD_START_S = 4.0
IMAGE_MB = 900
CLIENTS = 4
SECONDS = 10.0
STARTS = 5


RESULTS = Path(__file__).parent / "results" / "containers.md"
README = Path(__file__).parents[2] / "docker" / "README.md"
INSTANCES = {1: "1 vCPU", 2: "2 vCPU, such as ml.c7i.large, ml.m7i.large"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--image", default="rag-inference")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    engine = Engine.find()
    size = json.loads(engine.call("image", "inspect", given.image))[0]["Size"] / 1e6
    targets = [
        "| Target | Figure | |", "|---|--:|---|",
        row(f"Image, with its base: at most {IMAGE_MB} MB", f"{size:.0f} MB", met(size, IMAGE_MB)),
    ]  # fmt: skip
    sizing = [
        "| Instance | Passages | Files | Requests/s | p50 | p95 | Memory |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for bundle in map(locate, map(str, given.bundles)):
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        passages = f"{manifest['counts']['chunks']:,}"
        files = sum(entry["size"] for entry in manifest["files"].values()) / 1e6
        targets += starts(engine, given.image, bundle, passages)
        for cpus, instance in INSTANCES.items():
            figures = load(engine, given.image, bundle, cpus)
            sizing.append(row(instance, passages, f"{files:.0f} MB", *figures))
    print("\n".join([*targets, "", *sizing]))
    if given.write:
        write(given.bundles, targets, sizing)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def met(figure: float, limit: float) -> str:
    return f"{'met' if figure <= limit else 'missed'}, {figure / limit:.2f} of it"


def write(bundles: list[Path], targets: list[str], sizing: list[str]) -> None:
    """Puts the tables where they are read, with where they come from."""
    revision = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=True).stdout.strip()
    from_where = (
        f"Machine: {machine()}. Date: {datetime.now(UTC):%Y-%m-%d}. Commit: {commit}.\n"
        f"Command: `python tests/bench/containers.py {' '.join(b.name for b in bundles)} --write`,"
        f" {CLIENTS} callers on the same machine.\n"
    )
    page = "\n".join(["# The service's image", "", from_where, *targets, "", *sizing, ""])
    RESULTS.write_text(page, encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition("<!-- sizing -->\n")
    _, end, after = rest.partition("<!-- /sizing -->")
    table = "\n".join([*sizing, "", from_where.replace("\n", " ").strip(), ""])
    README.write_text(before + begin + table + end + after, encoding="utf-8")


def machine() -> str:
    """Cores, kind of processor and memory of this machine, in words."""
    said = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        said.setdefault(name.strip(), value.strip())
    kind = f", family {said['cpu family']}, model {said['model']}" if "cpu family" in said else ""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({platform.machine().replace('_', '-')}{kind}), {memory:.0f} GiB, no GPU"


def starts(engine: Engine, image: str, bundle: Path, passages: str) -> list[str]:
    """Rows on the time from `run` to /ping 200, and from SIGTERM to the exit with idle callers."""
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
    rows = []
    for name, values, limit in (
        ("Cold start to 200", cold, COLD_START_S),
        ("Stop", stops, GRACE_S),
    ):
        middle = statistics.median(values)
        spread = f"{middle:.2f} s (of {STARTS}: {min(values):.2f} to {max(values):.2f})"
        target = f"{name}, {passages} passages: under {limit:g} s"
        rows.append(row(target, spread, met(middle, limit)))
    return rows


def load(engine: Engine, image: str, bundle: Path, cpus: int) -> list[str]:
    """Requests a second, p50, p95, resident memory with as many CPUs, in words."""
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
    rate = len(times) / (SECONDS / 2)
    return [f"{rate:.0f}", f"{p50:.1f} ms", f"{p95:.1f} ms", f"{memory / 1e3:.0f} MB"]


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
