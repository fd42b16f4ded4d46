"""The service at its limits: latency, throughput, overload, cold start and memory, as ratios.

    apt-get install wrk
    python tests/bench/serving.py --data DIR --folder FOLDER

`--data` has `scale/` and `beir/` in BEIR's layout; the bundle is made once, below `--folder` (see
serving_bundle.py). Everything is measured in one run, in rounds that take turns, and medians are
compared: E is what the encoder does offline with these queries, in its best batch size; N is an
empty FastAPI route on the same server under the same load generator, which is wrk, and once more
httpx2, for many a service is asked by Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from serving_bundle import EMBEDDED, PASSAGES, build
from serving_load import Alone, closed_loop, flood, httpx_rate, open_loop
from serving_processes import Served, empty_route, rag_serve

from rag.models.onnx_embedder import OnnxEmbedder

SETS = ("nfcorpus", "msmarco-dl-5k", "anthropic-docs", "cranfield")
BATCH_TOKENS = (512, 1024, 2048, 4096)
CLIENTS = (1, 8, 32, 64)
FLOOD = 1152
"""Connections of an overload; wrk goes over all that wait to ask again whenever it does a thing."""
IN_FLIGHT = 1024
"""Requests that the service works on at once, by default."""


def read_queries(data: Path) -> list[str]:
    """All queries of the sets, shuffled the same way every time."""
    texts = []
    for name in SETS:
        with (data / "beir" / name / "queries.jsonl").open(encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    order = np.random.default_rng(1).permutation(len(texts))
    return [texts[place] for place in order]


def write_bodies(queries: list[str], path: Path) -> list[bytes]:
    bodies = [
        json.dumps({"query": text, "mode": "retrieve", "top_k": 10}).encode() for text in queries
    ]
    path.write_bytes(b"\n".join(bodies) + b"\n")
    return bodies


def settings(given: argparse.Namespace, *, cache: bool = False) -> dict[str, str]:
    chosen = {"RAG_ENCODER_PRECISION": given.precision}
    return chosen if cache else chosen | {"RAG_QUERY_CACHE_BYTES": "0"}


def offline_rate(bundle: Path, queries: list[str], precision: str) -> float:
    """Queries a second in the best of several batch sizes."""
    best = 0.0
    for tokens in BATCH_TOKENS:
        embedder = OnnxEmbedder(bundle / "encoder", max_batch_tokens=tokens, precision=precision)
        embedder.embed_queries(queries[:64])
        began = time.perf_counter()
        embedder.embed_queries(queries)
        best = max(best, len(queries) / (time.perf_counter() - began))
    return best


def unloaded(
    embedder: OnnxEmbedder, service: Served, queries: list[str], bodies: list[bytes]
) -> Any:
    """p50 of single requests beside the encoder's own time for the same queries, in turns; and
    medians of what the replies say of it, `outside` being what they do not know of.
    """
    client = Alone(service.port)
    own, whole, parts = [], [], []
    for place, (query, body) in enumerate(zip(queries, bodies, strict=True)):
        began = time.perf_counter()
        embedder.embed_queries([query])
        took = (time.perf_counter() - began) * 1e3
        asked, timings = client.ask(body)
        if place >= 20:
            own.append(took)
            whole.append(asked)
            parts.append(timings | {"outside": asked - timings["total"]})
    client.close()
    more = statistics.median(w - o for w, o in zip(whole, own, strict=True))
    return {
        "encoder_p50_ms": statistics.median(own), "service_p50_ms": statistics.median(whole),
        "difference_p50_ms": more,
        "parts_ms": {name: statistics.median(p[name] for p in parts) for name in parts[0]},
    }  # fmt: skip


def saturated(bundle: Path, queries: list[str], path: Path, given: argparse.Namespace) -> Any:
    """E, N and the service without its cache, in turns."""
    bodies = path.read_bytes().splitlines()
    found: dict[str, list[float]] = {}
    with rag_serve(bundle, **settings(given)) as service, empty_route() as empty:
        embedder = OnnxEmbedder(bundle / "encoder", precision=given.precision)
        alone = unloaded(embedder, service, queries[: given.alone], bodies[: given.alone])
        del embedder
        for turn in range(given.rounds):
            found.setdefault("E", []).append(
                offline_rate(bundle, queries[: given.offline], given.precision)
            )
            took = closed_loop(empty.port, path, clients=64, seconds=given.seconds)
            found.setdefault("N", []).append(took["rate"])
            for clients in CLIENTS:
                took = closed_loop(
                    service.port, path, clients=clients, seconds=given.seconds, start=turn * 997
                )
                found.setdefault(f"service_{clients}", []).append(took["rate"])
                found.setdefault(f"p50_ms_{clients}", []).append(took["p50_ms"])
            for name, server in (("N_httpx", empty), ("service_64_httpx", service)):
                rate = httpx_rate(
                    server.port, path, clients=64, seconds=given.seconds, start=turn * 997
                )
                found.setdefault(name, []).append(rate)
        rates = {name: statistics.median(values) for name, values in found.items()}
        half = open_loop(
            service.port, bodies, rate=rates["service_64"] / 2, seconds=2 * given.seconds,
            connections=128,
        )  # fmt: skip
        loaded = {name: service.mib(name) for name in ("Pss", "Rss")}
    bound, bound_httpx = (1 / (1 / rates["E"] + 1 / rates[n]) for n in ("N", "N_httpx"))
    return {
        "unloaded": alone, "rates": rates, "half_load": half, "memory_mib": loaded,
        "of_bound_64": rates["service_64"] / bound,
        "of_bound_64_httpx": rates["service_64_httpx"] / bound_httpx,
        "half_p99_over_p50": half["200"]["p99_ms"] / half["200"]["p50_ms"],
    }  # fmt: skip


def cached(bundle: Path, path: Path, given: argparse.Namespace) -> Any:
    """The service when it has seen every query before, and the empty route, in turns."""
    few = path.with_name("few.jsonl")
    few.write_bytes(b"\n".join(path.read_bytes().splitlines()[: given.offline]) + b"\n")
    rates: dict[str, list[float]] = {}
    with rag_serve(bundle, **settings(given, cache=True)) as service, empty_route() as empty:
        client = Alone(service.port)
        for body in few.read_bytes().splitlines():
            client.ask(body)
        client.close()
        for _ in range(given.rounds):
            for name, server in (("N", empty), ("service_64", service)):
                took = closed_loop(server.port, few, clients=64, seconds=given.seconds)
                rates.setdefault(name, []).append(took["rate"])
                slow = httpx_rate(server.port, few, clients=64, seconds=given.seconds)
                rates.setdefault(f"{name}_httpx", []).append(slow)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return medians | {
        "of_empty": medians["service_64"] / medians["N"],
        "of_empty_httpx": medians["service_64_httpx"] / medians["N_httpx"],
    }


def overload(bundle: Path, path: Path, given: argparse.Namespace, peak: float) -> Any:
    """Ten times what the service can do, most of which it must refuse."""
    with rag_serve(bundle, **settings(given)) as service:
        closed_loop(service.port, path, clients=64, seconds=given.seconds)
        memory = [service.mib("Rss")]
        peaks, runs = [peak], []
        for _ in range(given.rounds):
            # In turns: the machine is not always as fast.
            before = closed_loop(service.port, path, clients=64, seconds=given.seconds)
            peaks.append(before["rate"])
            run = flood(
                service.port, path, rate=10 * before["rate"], seconds=2 * given.seconds,
                connections=FLOOD, in_flight=IN_FLIGHT,
            )  # fmt: skip
            run["goodput"] = run["200"]["count"] / run["seconds"]
            run["of_peak"] = run["goodput"] / before["rate"]
            run["times_peak"] = run["sent"] / run["seconds"] / before["rate"]
            runs.append(run)
            memory.append(service.mib("Rss"))
    return {
        "peak": max(peaks), "of_peak": statistics.median(run["of_peak"] for run in runs),
        "refused_p50_ms": statistics.median(run["429"]["p50_ms"] for run in runs),
        "refused_p99_ms": statistics.median(run["429"]["p99_ms"] for run in runs),
        "memory_mib": memory, "runs": runs,
    }  # fmt: skip


def threads(bundle: Path, path: Path, given: argparse.Namespace) -> Any:
    """Processor milliseconds a request of the four busiest threads, by clients: one is the event
    loop's, one the search's, and two are the encoder's.
    """
    found: dict[str, Any] = {}
    with rag_serve(bundle, **settings(given)) as service:
        for clients in CLIENTS:
            closed_loop(service.port, path, clients=clients, seconds=given.seconds / 2)
            before = service.threads_s()
            took = closed_loop(service.port, path, clients=clients, seconds=given.seconds)
            spent = [s - before.get(thread, 0.0) for thread, s in service.threads_s().items()]
            busiest = sorted(spent, reverse=True)[:4]
            found[str(clients)] = [round(s / took["requests"] * 1e3, 2) for s in busiest]
    return found


def start(bundle: Path, given: argparse.Namespace) -> Any:
    """Cold starts, with the files in the page cache, and memory against the files' size.

    What is resident counts once and whole, also where it is this process's too, as libraries are.
    """
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    files = sum(entry["size"] for entry in manifest["files"].values()) / 2**20
    starts, processor = [], []
    for _ in range(4):
        with rag_serve(bundle, **settings(given, cache=True)) as service:
            starts.append(service.cold_start_s)
            processor.append(service.cpu_s())
            memory = {name: service.mib(name) for name in ("Pss", "Rss")}
            torch = service.maps("libtorch")
    return {
        "cold_start_s": statistics.median(starts[1:]), "starts_s": starts,
        "processor_s": statistics.median(processor), "files_mib": files,
        "memory_mib": memory, "of_files": memory["Rss"] / files, "torch": torch,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="kept between runs")
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--embedded", type=int, default=EMBEDDED)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--precision", default="float32", choices=["float32", "int8"])
    parser.add_argument("--lang", default="en")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--alone", type=int, default=300, help="single requests")
    parser.add_argument("--offline", type=int, default=1000, help="queries embedded offline")
    parser.add_argument("--only", choices=["start", "saturated", "cached", "overload", "threads"])
    given = parser.parse_args()
    bundle = build(
        given.folder, given.data, lang=given.lang, passages=given.passages,
        embedded=given.embedded, dense={"kind": given.kind},
    )  # fmt: skip
    queries = read_queries(given.data)
    path = given.folder / "queries.jsonl"
    write_bodies(queries, path)
    tell("queries", {"queries": len(queries), "passages": given.passages})
    peak = 0.0
    if given.only in (None, "start"):
        tell("start", start(bundle, given))
    if given.only in (None, "saturated"):
        found = saturated(bundle, queries, path, given)
        peak = found["rates"]["service_64"]
        tell("saturated", found)
    if given.only in (None, "cached"):
        tell("cached", cached(bundle, path, given))
    if given.only in (None, "threads"):
        tell("threads", threads(bundle, path, given))
    if given.only in (None, "overload"):
        tell("overload", overload(bundle, path, given, peak))


def tell(name: str, found: Any) -> None:
    """Prints one part as soon as it is known."""
    print(json.dumps({name: found}, indent=1, default=float), flush=True)


if __name__ == "__main__":
    main()
