"""The service beside five peers: throughput, quality, latency, start and memory, in one run.

    python3.11 -m venv PEERS
    PEERS/bin/pip install torch==2.13.0
    PEERS/bin/pip install sentence-transformers haystack-ai sentence-transformers-haystack txtai \\
        lancedb langchain-classic langchain-community langchain-huggingface rank-bm25 faiss-cpu \\
        bm25s PyStemmer fastapi uvicorn
    python tests/bench/peers.py --dataset nfcorpus --cache FOLDER --python PEERS/bin/python

Each peer is set up as its own documentation shows (tests/bench/peer_server.py), with the same
model and passages, behind a FastAPI route as it would be served; *tuned* is the same with the
processors' threads for one request at a time. The service embeds every query anew: its cache of
query vectors is off; it is measured with both precisions of its encoder. wrk's CLIENTS ask all
judged queries over and over, each as soon as it has its reply: the median of several turns counts,
and the best of a peer's documented and tuned ways is what the service is held against. nDCG@10 is
that of the replies. Start is from the process's start to the first 200 of /ping; peers make their
indexes from ready vectors then, for most of them cannot keep both on disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from serving_bundle import write_bundle
from serving_load import closed_loop
from serving_processes import Served, free_port

from eval.collection import whole_chunks
from eval.datasets import Dataset, load_beir
from eval.measures import means, per_query
from eval.runs import ranking
from eval.vectors import LazyEmbedder, VectorCache
from indexer.exports import prepare_encoder
from rag.models.encoder import EncoderConfig, resolve
from rag.types import Float32

CLIENTS = 16
SECONDS = 5.0
"""Of one turn."""
PRECISIONS = ("float32", "int8")
ALONE = 30
"""Queries asked one after the other, for the latency without load."""
MEASURE = "nDCG@10"
PEERS = ("plain", "langchain", "haystack", "lancedb", "txtai")


@dataclass(frozen=True, slots=True)
class Measured:
    """One server: queries a second with CLIENTS, quality of its replies, and what it takes."""

    name: str
    rate: float
    ndcg: float
    p50_ms: float
    start_s: float
    mib: float


def measure(
    name: str,
    server: Served,
    dataset: Dataset,
    body: Callable[[str], dict[str, Any]],
    ids: Callable[[Any], list[str]],
    rounds: int,
) -> Measured:
    """Asks `server` everything; `body` makes a request, `ids` reads the documents of a reply."""
    address = f"http://127.0.0.1:{server.port}/invocations"
    client = httpx2.Client(timeout=120)

    def ask(query_id: str) -> list[str]:
        reply = client.post(address, json=body(dataset.queries[query_id]))
        reply.raise_for_status()
        return ids(reply.json())

    asked = dataset.judged()
    alone = []
    for query_id in asked[:ALONE]:
        began = time.perf_counter()
        ask(query_id)
        alone.append((time.perf_counter() - began) * 1e3)
    run = {}
    for query_id in asked:
        found = ask(query_id)
        run[query_id] = ranking(query_id, found, np.arange(len(found), 0, -1, dtype=np.float32))
    ndcg = means(per_query(run, dataset.qrels, [MEASURE]))[MEASURE]
    with tempfile.NamedTemporaryFile("wb") as lines:
        lines.writelines(json.dumps(body(dataset.queries[one])).encode() + b"\n" for one in asked)
        lines.flush()
        turns = [
            closed_loop(server.port, Path(lines.name), clients=CLIENTS, seconds=SECONDS, start=turn)
            for turn in range(rounds)
        ]
    if any(turn["failed"] or turn["refused"] for turn in turns):
        raise SystemExit(f"{name}: not every request was answered: {turns}")
    client.close()
    measured = Measured(
        name, statistics.median(turn["rate"] for turn in turns), ndcg, statistics.median(alone),
        server.cold_start_s, server.mib("Rss"),
    )  # fmt: skip
    print(json.dumps(asdict(measured)), flush=True)
    return measured


def ours(bundle: Path, precision: str, dataset: Dataset, rounds: int) -> Measured:
    port = free_port()
    settings = {
        "RAG_BUNDLE": str(bundle), "RAG_HOST": "127.0.0.1", "RAG_PORT": str(port),
        "RAG_QUERY_CACHE_BYTES": "0", "RAG_LOG_LEVEL": "WARNING",
        "RAG_ENCODER_PRECISION": precision,
    }  # fmt: skip
    server = Served([sys.executable, "-m", "rag", "serve"], port, settings)
    try:
        return measure(
            f"this service, {precision}", server, dataset,
            lambda text: {"query": text, "mode": "retrieve", "top_k": 10},
            lambda reply: [passage["doc_id"] for passage in reply["passages"]],
            rounds,
        )  # fmt: skip
    finally:
        server.stop()


def theirs(
    name: str, tuned: bool, python: str, arguments: Sequence[str], dataset: Dataset, rounds: int
) -> Measured:
    port = free_port()
    script = str(Path(__file__).with_name("peer_server.py"))
    command = [python, script, name, *arguments, f"--port={port}", *(["--tuned"] if tuned else [])]
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    server = Served(command, port, offline)
    try:
        label = f"{name}, tuned" if tuned else name
        return measure(
            label, server, dataset, lambda text: {"query": text}, lambda reply: reply["ids"],
            rounds,
        )  # fmt: skip
    finally:
        server.stop()


def prepare(dataset: Dataset, cache: Path) -> tuple[Path, Path]:
    """The bundle and the passages' vectors in the order of the corpus; made once, in `cache`."""
    vectors_path, bundle = cache / f"{dataset.name}.npy", cache / f"{dataset.name}-bundle"
    if vectors_path.is_file() and (bundle / "manifest.json").is_file():
        return bundle, vectors_path
    embedder = LazyEmbedder("default", exports=cache / "encoders")
    chunks = whole_chunks(dataset)
    texts = [chunk.indexed_text for _, chunk in chunks]
    kept = VectorCache(cache / "vectors", embedder.runs_as)
    vectors: Float32 = kept.embed(embedder, "passage", texts, lambda *_: None)
    row = {chunk.doc_id: place for place, (_, chunk) in enumerate(chunks)}
    np.save(vectors_path, vectors[[row[line.doc_id] for line in dataset.corpus()]])
    source = resolve("default")
    config = EncoderConfig.read(source)
    bundle.mkdir(parents=True)
    measured = prepare_encoder(
        source, bundle / "encoder", config, safetensors=False, cache=cache / "exports"
    )
    write_bundle(bundle, chunks, vectors, {"kind": "flat"}, config, measured)
    return bundle, vectors_path


def show(found: Sequence[Measured], console: Console) -> None:
    table = Table(box=box.SIMPLE)
    for column in ("", "queries/s", "ours is", MEASURE, "p50 alone, ms", "start, s", "MiB"):
        table.add_column(column, justify="left" if not column else "right")
    for m in found:
        times = ", ".join(
            f"{own.rate / m.rate:.1f}x" for own in found[: len(PRECISIONS)] if own is not m
        )
        cells = (f"{m.ndcg:.4f}", f"{m.p50_ms:.1f}", f"{m.start_s:.1f}", f"{m.mib:.0f}")
        table.add_row(m.name, f"{m.rate:.1f}", times, *cells)
    console.print(table)


def main() -> None:
    options = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    options.add_argument("--dataset", type=Path, required=True, help="folder of BEIR's layout")
    options.add_argument("--cache", type=Path, required=True, help="kept between runs")
    options.add_argument("--python", required=True, help="interpreter of the peers' venv")
    options.add_argument("--only", nargs="*", default=list(PEERS), choices=list(PEERS))
    options.add_argument("--rounds", type=int, default=3, help="turns of wrk")
    options.add_argument("--json", type=Path, help="write the figures to this file")
    options.add_argument("--prepare", action="store_true", help="make bundle and vectors, no more")
    given = options.parse_args()
    dataset = load_beir(given.dataset)
    bundle, vectors = prepare(dataset, given.cache)
    if given.prepare:
        return
    arguments = [
        f"--corpus={dataset.corpus_path}", f"--vectors={vectors}", f"--model={resolve('default')}",
    ]  # fmt: skip
    found = [ours(bundle, precision, dataset, given.rounds) for precision in PRECISIONS]
    for name in given.only:
        for tuned in (False, True):
            made = theirs(name, tuned, given.python, arguments, dataset, given.rounds)
            found.append(made)
    # Once more: did the machine change?
    found.extend(ours(bundle, precision, dataset, given.rounds) for precision in PRECISIONS)
    show(found, Console())
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(m) for m in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
