"""Twenty thousand damaged requests against a real service: no 5xx, no hang.

    python tests/bench/fuzz.py --bundle BUNDLE

A quarter of the bodies are still whole requests, and are answered with the extractive generator. A
request takes some 9 ms of processor time, service and client together, with the sample bundle: all
of it two to three minutes of an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
from mutations import mutations

TIMEOUT_S = 30.0
WORKERS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--most-s", type=float, default=3600.0, help="end after so many seconds")
    parser.add_argument("--seed", type=int, default=20261125)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "SAGEMAKER_"))}
    settings = {"RAG_BUNDLE": options.bundle, "RAG_HOST": "127.0.0.1", "RAG_PORT": str(port)}
    command = [sys.executable, "-m", "rag", "serve"]
    process = subprocess.Popen(
        command, env=base | settings | {"RAG_LOG_REQUESTS": "none"}, stderr=subprocess.DEVNULL
    )
    statuses: Counter[int | str] = Counter()
    bad: list[str] = []
    slowest = 0.0
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S) as client:
        _until_ready(client)

        def send(case: tuple[bytes, dict[str, str]]) -> tuple[int | str, float, str]:
            began = time.monotonic()
            try:
                response = client.post("/invocations", content=case[0], headers=case[1])
            except httpx2.HTTPError as error:
                return type(error).__name__, time.monotonic() - began, repr(case)[:300]
            note = repr(case)[:300] if response.status_code >= 500 else ""
            return response.status_code, time.monotonic() - began, note

        began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            cases = mutations(options.count, options.seed)
            while chunk := list(islice(cases, 500)):
                for status, took_s, note in pool.map(send, chunk):
                    statuses[status] += 1
                    slowest = max(slowest, took_s)
                    if note:
                        bad.append(f"{status}: {note}")
                if time.monotonic() - began > options.most_s:
                    break
        took_s = time.monotonic() - began
        alive = client.get("/ping").status_code
    process.terminate()
    code = process.wait(40)
    print(f"{sum(statuses.values())} requests (seed {options.seed}) in {took_s:.0f} s")
    for status, count in sorted(statuses.items(), key=lambda pair: str(pair[0])):
        print(f"  {status}: {count}")
    print(f"slowest answer: {slowest:.2f} s; /ping afterwards: {alive}; exit code: {code}")
    print(f"5xx, hangs and broken connections: {len(bad)}")
    for line in bad[:10]:
        print(f"  {line}")
    whole = statuses.total() == options.count
    if not whole:
        print(f"cut short: {options.count} were asked for")
    return 0 if whole and not bad and alive == 200 and code == 0 else 1


def _until_ready(client: httpx2.Client) -> None:
    for _ in range(1200):
        try:
            if client.get("/ping").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service did not become ready")


if __name__ == "__main__":
    sys.exit(main())
