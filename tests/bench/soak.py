"""Mixed traffic on a real service while its index is swapped, clients leave and the generator
breaks: every reply is checked, memory and file descriptors are watched.

Both versions hold the same documents, each marked with its version's letter in the metadata, so
that a reply shows which version each of its passages is from. Every tenth swap is to a version
with a flipped bit, which must not be served.

    python tests/bench/soak.py --requests 200000 --work DIR
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil

from indexer.build import BuildOptions, build
from indexer.source import Source
from rag.index.manifest import parse
from rag.index.root import VERSIONS, Root
from rag.service.http_server import new_event_loop

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "eval" / "sample" / "documents"
QUERIES = ROOT / "eval" / "sample" / "queries.jsonl"
MIX = {
    "retrieve": 72, "filtered": 8, "answer": 6, "stream": 4, "strict": 2, "leave": 3, "lines": 2,
    "bad": 3,
}  # fmt: skip
EXPLAINED = {"strict": {502, 504}, "stream": {502, 504}}
"""5xx that the generator's faults explain, where a request asks to hear of them."""
TIMEOUT_S = 90.0


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
        if not bundle.exists():
            options = BuildOptions(backend="onnx", encoder_cache=work / "encoders")
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


class Faults:
    """A fake chat endpoint at the wire: most answers are fine, the others broken in turn."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.count += 1
                await self._answer(self.count, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, number: int, writer: asyncio.StreamWriter) -> None:
        fault = {3: "500", 7: "reset", 11: "garbage", 15: "cut", 19: "429", 23: "slow"}
        what = fault.get(number % 29, "fine")
        if what == "reset":
            writer.transport.abort()
            return
        if what in ("500", "429"):
            writer.write(f"HTTP/1.1 {what} No\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for word in ("The ", "documents ", "say ", "so ", "[1]."):
            chunk = {"choices": [{"index": 0, "delta": {"content": word}}]}
            self._event(writer, json.dumps({"object": "chat.completion.chunk"} | chunk))
            await writer.drain()
            if what == "slow":
                await asyncio.sleep(0.2)
            if what == "garbage":
                self._event(writer, "{nope")
            if what == "cut":
                writer.transport.abort()
                return
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        self._event(writer, json.dumps(last))
        self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    def _event(self, writer: asyncio.StreamWriter, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))


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


class Client:
    """One connection after the other; checks every reply."""

    def __init__(self, port: int, ids: dict[str, str], queries: list[str], seed: int) -> None:
        self._port = port
        self._letters = {version: letter for letter, version in ids.items()}
        self._queries = queries
        self._chance = random.Random(seed)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def ask(self) -> None:
        """One request of the mix."""
        kind = self._chance.choices(list(MIX), weights=list(MIX.values()))[0]
        body = self._body(kind)
        content_type = "application/jsonlines" if kind == "lines" else "application/json"
        try:
            async with asyncio.timeout(TIMEOUT_S):  # nothing hangs
                if kind == "leave":
                    await self._leave(body)
                    self.counts["leave"] += 1
                    return
                status, reply = await self._exchange(body, content_type)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self._drop()
            self.wrong.append(f"{kind}: {error!r}")
            return
        self.counts[f"{kind} {status}"] += 1
        self._check(kind, status, reply)

    def _body(self, kind: str) -> bytes:
        query, top_k = self._chance.choice(self._queries), self._chance.choice((1, 3, 10))
        request: dict[str, Any] = {"query": query, "mode": "retrieve", "top_k": top_k}
        if kind in ("answer", "stream", "strict", "leave"):
            request["mode"] = "answer"
        if kind in ("stream", "leave"):
            request["stream"] = True
        if kind in ("strict", "stream"):
            request["on_generator_failure"] = "error"
        if kind == "filtered":
            request["filter"] = {"lang": self._chance.choice(("en", "ko"))}
        if kind == "bad":
            request["top_k"] = 0
        if kind == "lines":
            return b"\n".join(self._body("retrieve") for _ in range(4))
        return orjson.dumps(request)

    def _check(self, kind: str, status: int, reply: bytes) -> None:
        """Notes a reply that nothing explains."""
        if (status >= 500 and status not in EXPLAINED.get(kind, ())) or (
            (kind == "bad") != (status == 400) and status < 500
        ):
            self.wrong.append(f"{kind}: {status} {reply[:300]!r}")
        elif status == 200:
            lines = [orjson.loads(line) for line in reply.splitlines() if line]
            if kind == "lines" and len(lines) != 4:
                self.wrong.append(f"lines: {len(lines)} of 4")
            if kind == "stream" and lines[-1]["type"] not in ("done", "error"):
                self.wrong.append("stream: no end")
            versions = {line["index_version"] for line in lines if "index_version" in line}
            if kind != "lines" and len(versions) != 1:
                self.wrong.append(f"{kind}: {len(versions)} versions")
            for line in lines:
                self._check_versions(kind, line)

    def _check_versions(self, kind: str, line: dict[str, Any]) -> None:
        if "passages" not in line:
            return
        letters = {passage["metadata"]["generation"] for passage in line["passages"]}
        letter = self._letters[line["index_version"]]
        if letters - {letter} or letter == "x":
            self.wrong.append(f"{kind}: version {letter} answers with passages of {letters}")

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _send(self, body: bytes, content_type: str) -> asyncio.StreamReader:
        reader, writer = await self._open()
        head = "POST /invocations HTTP/1.1\r\nhost: a\r\n"
        head += f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader

    async def _exchange(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        reader = await self._send(body, content_type)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return status, await reader.readexactly(length)
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return status, b"".join(parts)

    async def _leave(self, body: bytes) -> None:
        """Asks, waits a moment or for the first bytes, and is gone."""
        reader = await self._send(body, "application/json")
        if self._chance.random() < 0.5:
            await asyncio.sleep(self._chance.random() * 0.02)
        else:
            await reader.readuntil(b"\r\n\r\n")
        self._drop()


async def swap(root: Root, ids: dict[str, str], every_s: float, done: list[str]) -> None:
    """Makes another version current again and again; now and then one that cannot be served."""
    while True:
        await asyncio.sleep(every_s)
        number = len(done)
        letter = "x" if number % 10 == 9 else "ba"[number % 2]
        await asyncio.to_thread(lambda to=letter: root.point(ids[to], root.current()))
        done.append(letter)


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
    queries += [f"{query} {number}" for number in range(20) for query in queries]
    faults = Faults()
    endpoint = await asyncio.start_server(faults.serve, "127.0.0.1", 0)
    generator_port = endpoint.sockets[0].getsockname()[1]
    with service(root, generator_port, options.work / "service.log") as (process, port):
        await _until_ready(port)
        clients = [Client(port, ids, queries, seed) for seed in range(options.clients)]
        samples: list[tuple[float, int, int]] = []
        swaps: list[str] = []
        left = [options.requests]
        beside = [
            asyncio.create_task(swap(root, ids, options.swap_every, swaps)),
            asyncio.create_task(watch(process, samples)),
        ]

        async def work(client: Client) -> None:
            while left[0] > 0 and time.monotonic() < until:
                left[0] -= 1
                await client.ask()

        began = time.monotonic()
        until = began + options.most_s
        await asyncio.gather(*(work(client) for client in clients))
        took_s = time.monotonic() - began
        for task in beside:
            task.cancel()
        metrics = await _metrics(port)
    endpoint.close()
    return report(options, clients, samples, swaps, metrics, took_s, faults.count)


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
    swaps: list[str],
    metrics: dict[str, float],
    took_s: float,
    generated: int,
) -> bool:
    """Prints everything that was counted; whether all of it is as it must be."""
    counts: Counter[str] = sum((client.counts for client in clients), Counter())
    wrong = [line for client in clients for line in client.wrong]
    early = samples[len(samples) // 5 : 2 * len(samples) // 5] or samples
    late = samples[4 * len(samples) // 5 :]
    memory = _median([s[1] for s in late]) / _median([s[1] for s in early])
    descriptors = _median([s[2] for s in late]) - _median([s[2] for s in early])
    made = metrics.get("rag_swaps_total", 0.0)
    print(f"{sum(counts.values())} requests in {took_s:.0f} s by {options.clients} clients")
    for name, count in sorted(counts.items()):
        print(f"  {name:<16}{count:>8}")
    print(f"the generator was asked {generated} times")
    print(f"CURRENT changed {len(swaps)} times, {swaps.count('x')} of them to a damaged version")
    failed = sum(value for name, value in metrics.items() if "failures_total" in name)
    print(f"swaps {made:.0f}, refused versions {failed:.0f}")
    print(
        f"memory (PSS), last fifth to second fifth: {memory:.3f};"
        f" median {_median([s[1] for s in late]) / 2**20:.0f} MiB,"
        f" peak {max(s[1] for s in samples) / 2**20:.0f} MiB"
    )
    print(f"file descriptors, likewise: {descriptors:+.0f}; peak {max(s[2] for s in samples)}")
    print(f"not explained: {len(wrong)}")
    for line in wrong[:10]:
        print(f"  {line}")
    return not wrong and memory < 1.1 and descriptors <= 8 and made > 0


def _median(values: list[int]) -> float:
    return float(sorted(values)[len(values) // 2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--most-s", type=float, default=3600.0, help="end after so many seconds")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--swap-every", type=float, default=5.0, help="seconds")
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and logs")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        sys.exit(0 if runner.run(run(parser.parse_args())) else 1)
