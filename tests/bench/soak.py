"""Mixed traffic on a real service while its index is swapped, clients leave and the generator
breaks: every reply is checked, memory and file descriptors are watched.

Both versions hold the same documents, each marked with its version's letter in the metadata, so
that a reply shows which version each of its passages is from. Swaps are spread evenly over the
requests, and each is waited for; after every tenth a version with a flipped bit is made current,
which must be refused. Nineteen of twenty questions are those of the sample set, whose vectors are
cached until the next swap; the others are new.

    python tests/bench/soak.py --requests 200000 --swaps 50 --work DIR

A request of the mix takes some 3.6 ms of processor time, service, client and generator together,
so that 200,000 take six to twelve minutes of an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from soak_client import Client
from soak_generator import Faults

from indexer.build import BuildOptions, build
from indexer.source import Source
from rag.index.manifest import NAME, parse
from rag.index.pointer import VERSIONS
from rag.index.root import Root
from rag.service.http_server import new_event_loop

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "eval" / "sample" / "documents"
QUERIES = ROOT / "eval" / "sample" / "queries.jsonl"
SWAP_S = 60.0
"""Longest wait for a swap, or for a damaged version to be refused."""


def make_versions(work: Path) -> tuple[Root, dict[str, str]]:
    """A root with versions 'a', 'b' and the damaged 'x'; their ids."""
    root, ids = Root(str(work / "root")), {}
    for letter in "abx":
        folder = work / f"documents-{letter}"
        if not folder.exists():
            shutil.copytree(DOCUMENTS, folder)
            for file in [f for f in folder.rglob("*") if f.is_file()]:
                sidecar = file.with_name(file.name + ".metadata.json")
                if not file.name.endswith(".metadata.json"):
                    sidecar.write_text(json.dumps({"metadataAttributes": {"generation": letter}}))
        bundle = work / f"bundle-{letter}"
        if not (bundle / NAME).is_file():
            shutil.rmtree(bundle, ignore_errors=True)
            options = BuildOptions(
                backend="onnx",
                encoder_cache=work / "encoders",
                vector_cache=str(work / "vectors"),
            )
            build(Source(str(folder)), bundle, options)
        ids[letter] = parse((bundle / "manifest.json").read_bytes(), letter).version
        target = work / "root" / VERSIONS / ids[letter]
        if not target.exists():
            shutil.copytree(bundle, target, copy_function=os.link)
    chunks = work / "root" / VERSIONS / ids["x"] / "chunks.arrow"
    data = bytearray((work / "bundle-x" / "chunks.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    chunks.unlink()
    chunks.write_bytes(data)
    root.point(ids["a"], root.current())
    return root, ids


@contextmanager
def service(root: Root, generator_port: int, log: Path) -> Iterator[tuple[psutil.Process, int]]:
    """`rag serve` on the root; its process and its port."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "RAG_BUNDLE": root.uri, "RAG_HOST": "127.0.0.1", "RAG_PORT": str(port),
        "RAG_FOLLOW_INTERVAL_S": "0.25", "RAG_GENERATOR": "openai", "RAG_GENERATOR_MODEL": "m",
        "RAG_GENERATOR_URL": f"http://127.0.0.1:{generator_port}/v1", "RAG_LOG_REQUESTS": "none",
        "RAG_GENERATOR_BREAKER_OPEN_S": "0.5",
    }  # fmt: skip
    base = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "SAGEMAKER_"))}
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "rag", "serve"]
        process = subprocess.Popen(command, env=base | settings, stderr=stream)
    try:
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        code = process.wait(40)
        print(f"exit code after SIGTERM: {code}")


class Swaps:
    """Makes another version current again and again, each when its share of the requests is done;
    after every tenth one that cannot be served.
    """

    def __init__(self, root: Root, ids: dict[str, str], port: int, count: int) -> None:
        self._root = root
        self._ids = ids
        self._port = port
        self._count = count
        self.made = 0
        self.refused = 0
        self.wrong: list[str] = []

    async def run(self, done: Callable[[], float]) -> None:
        """`done` tells the share of the requests that is done."""
        for number in range(1, self._count + 1):
            while done() < number / (self._count + 1):
                await asyncio.sleep(0.05)
            self.made += await self._point("ab"[number % 2], "rag_swaps_total")
            if number % 10 == 0:
                self.refused += await self._point("x", "rag_swap_failures_total")

    async def _point(self, letter: str, counter: str) -> bool:
        """Whether the service has counted it."""
        before = await self._counted(counter)
        await asyncio.to_thread(lambda: self._root.point(self._ids[letter], self._root.current()))
        end = time.monotonic() + SWAP_S
        while await self._counted(counter) <= before:
            if time.monotonic() > end:
                self.wrong.append(f"{counter} did not grow in {SWAP_S:g} s with version {letter}")
                return False
            await asyncio.sleep(0.1)
        return True

    async def _counted(self, counter: str) -> float:
        metrics = await _metrics(self._port)
        return sum(value for name, value in metrics.items() if name.startswith(counter))


async def watch(process: psutil.Process, samples: list[tuple[float, int, int]]) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(1.0)
        memory = process.memory_full_info()
        samples.append((time.monotonic() - began, memory.pss, process.num_fds()))


async def run(options: argparse.Namespace) -> bool:
    options.work.mkdir(parents=True, exist_ok=True)
    root, ids = make_versions(options.work)
    queries = [json.loads(line)["text"] for line in QUERIES.read_text("utf-8").splitlines()]
    faults = Faults()
    endpoint = await asyncio.start_server(faults.serve, "127.0.0.1", 0)
    generator_port = endpoint.sockets[0].getsockname()[1]
    with service(root, generator_port, options.work / "service.log") as (process, port):
        await _until_ready(port)
        clients = [Client(port, ids, queries, seed) for seed in range(options.clients)]
        samples: list[tuple[float, int, int]] = []
        swaps = Swaps(root, ids, port, options.swaps)
        asked = 0
        swapping = asyncio.create_task(swaps.run(lambda: asked / options.requests))
        watching = asyncio.create_task(watch(process, samples))

        async def work(client: Client) -> None:
            nonlocal asked
            while time.monotonic() < until and (asked < options.requests or not swapping.done()):
                asked += 1
                await client.ask()

        began, spent, own = time.monotonic(), _processor_s(process), time.process_time()
        until = began + options.most_s
        await asyncio.gather(*(work(client) for client in clients))
        took = Took(
            time.monotonic() - began, _processor_s(process) - spent, time.process_time() - own
        )
        for task in (swapping, watching):
            task.cancel()
    endpoint.close()
    return report(options, clients, samples, swaps, took, faults.count)


class Took(NamedTuple):
    """Seconds: of the clock, and of processors for the service and for this process."""

    wall_s: float
    service_s: float
    own_s: float


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _until_ready(port: int) -> None:
    for _ in range(1200):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n")
            line = await reader.readline()
            writer.close()
            if b" 200 " in line:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the service did not become ready")


async def _metrics(port: int) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    lines = [line for line in text.splitlines() if line.startswith("rag_swap")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def report(
    options: argparse.Namespace,
    clients: list[Client],
    samples: list[tuple[float, int, int]],
    swaps: Swaps,
    took: Took,
    generated: int,
) -> bool:
    """Prints everything that was counted; whether all of it is as it must be."""
    counts: Counter[str] = sum((client.counts for client in clients), Counter())
    wrong = swaps.wrong + [line for client in clients for line in client.wrong]
    early = samples[len(samples) // 5 : 2 * len(samples) // 5] or samples
    late = samples[4 * len(samples) // 5 :]
    memory = _median([s[1] for s in late]) / _median([s[1] for s in early])
    descriptors = _median([s[2] for s in late]) - _median([s[2] for s in early])
    total = sum(counts.values())
    print(f"{total} requests in {took.wall_s:.0f} s by {options.clients} clients")
    print(
        f"processor time of a request: service {took.service_s / total * 1e3:.2f} ms,"
        f" clients, checks and generator {took.own_s / total * 1e3:.2f} ms"
    )
    for name, count in sorted(counts.items()):
        print(f"  {name:<16}{count:>8}")
    print(f"the generator was asked {generated} times")
    print(
        f"swaps {swaps.made} of {options.swaps}, damaged versions refused {swaps.refused} of"
        f" {options.swaps // 10}"
    )
    print(
        f"memory (PSS), last fifth to second fifth: {memory:.3f};"
        f" median {_median([s[1] for s in late]) / 2**20:.0f} MiB,"
        f" peak {max(s[1] for s in samples) / 2**20:.0f} MiB"
    )
    print(f"file descriptors, likewise: {descriptors:+.0f}; peak {max(s[2] for s in samples)}")
    print(f"not explained: {len(wrong)}")
    for line in wrong[:10]:
        print(f"  {line}")
    whole = total >= options.requests and swaps.made == options.swaps
    if not whole:
        print("cut short: the requests or the swaps that were asked for are not all made")
    return whole and not wrong and memory < 1.1 and descriptors <= 8


def _median(values: list[int]) -> float:
    return float(sorted(values)[len(values) // 2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--most-s", type=float, default=3600.0, help="end after so many seconds")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and logs")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        sys.exit(0 if runner.run(run(parser.parse_args())) else 1)
