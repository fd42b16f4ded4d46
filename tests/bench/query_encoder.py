"""The query encoder alone, in batches of several sizes: with padding, and without.

    python tests/bench/query_encoder.py --data DIR --encoder FOLDER

`--data` has `beir/` in BEIR's layout, `--encoder` is an exported encoder's folder, such as a
bundle's. Queries come in the order of no length, as they do in a service; the ways take turns, and
the best of each counts. Prints queries a second on two threads, and processor milliseconds a query.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from serving import read_queries

from rag.models.onnx_embedder import OnnxEmbedder, Precision

BATCHES = (1, 8, 16, 32, 64, 256)
WAYS: tuple[tuple[Precision, bool], ...] = (("float32", False), ("float32", True), ("int8", True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=512, help="in each turn, at most")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--threads", type=int, help="default: as many as there are processors")
    given = parser.parse_args()
    queries = read_queries(given.data)
    names = [f"{p}, {'packed' if packed else 'padded'}" for p, packed in WAYS]
    embedders = [
        OnnxEmbedder(given.encoder, precision=p, packed=packed, threads=given.threads)
        for p, packed in WAYS
    ]
    print(f"| batch | {' | '.join(names)} |\n|--:|{'--:|' * len(names)}", flush=True)
    for batch in BATCHES:
        runs = max(1, min(given.queries, 24 * batch) // batch)
        found: list[list[tuple[float, float]]] = [[] for _ in embedders]
        for _ in range(given.turns):
            for embedder, times in zip(embedders, found, strict=True):
                spent, began = time.process_time(), time.perf_counter()
                for run in range(runs):
                    embedder.embed_queries(queries[run * batch : (run + 1) * batch])
                times.append((time.perf_counter() - began, time.process_time() - spent))
        count = runs * batch
        best = [[min(column) for column in zip(*times, strict=True)] for times in found]
        cells = [f"{count / wall:.0f}, {cpu / count * 1e3:.1f} ms" for wall, cpu in best]
        print(f"| {batch} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
