"""How much of the default fusion's gain is left where its weights were not fitted.

    python tests/bench/fusion_weights.py --cache FOLDER DIR [DIR …]

Every combination of weights on a grid ranks every collection (BEIR's layout). For each collection,
the combination with the highest mean gain over the better leg on all *other* collections is taken,
and its gain on that one is shown: leave-one-collection-out. Then, what moving one weight of the
default does to the mean of all.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from eval.collection import IndexOptions, build_collection
from eval.datasets import Dataset, load_beir
from eval.measures import per_query
from eval.progress import make_advance
from eval.runs import Run, ranking
from eval.vectors import LazyEmbedder, VectorCache
from rag.retrieval.feedback import CANDIDATES, Asked, Feedback, measure_scale
from rag.types import NO_ROW, Hits

MEASURE = "nDCG@10"
DEEP = 11  # one more than is measured: the query's own document is left out
MOST = 600
"""Queries of a collection that are asked, evenly spaced where there are more."""
GRID: Mapping[str, Sequence[float]] = {
    "keywords": (0.5, 0.75, 1.0),
    "coverage": (0.25, 0.5, 0.75),
    "feedback": (0.7, 1.0, 1.4),
    "by_terms": (1.0, 1.5, 2.0),
}
Weights = tuple[tuple[str, float], ...]


def measure(folder: Path, cache: Path, tried: Sequence[Feedback]) -> tuple[list[float], float]:
    """Mean nDCG@10 of each of `tried`, and of the better leg."""
    dataset = load_beir(folder)
    with tempfile.TemporaryDirectory() as work, make_advance() as advance:
        embedder = LazyEmbedder("default", exports=cache / "encoders")
        vectors = VectorCache(cache / "vectors", embedder.runs_as)
        index = build_collection(
            dataset, Path(work), embedder, IndexOptions(), vectors=vectors, advance=advance
        )
        rows = index.manifest.counts["chunks"]
        names = [chunk.doc_id for chunk in index.chunks(np.arange(rows))]
        texts = [unicodedata.normalize("NFC", dataset.queries[q]) for q in dataset.judged()]
        embedded = vectors.embed(embedder, "query", texts, advance)
        step = -(-len(texts) // MOST)
        texts, embedded = texts[::step], embedded[::step]
        dataset = replace(dataset, qrels={q: dataset.qrels[q] for q in dataset.judged()[::step]})
        asked = Asked(texts, embedded, embedder.readable(texts))
        legs = (
            index.search_dense(embedded, CANDIDATES, None),
            index.search_sparse(texts, CANDIDATES, None),
        )
        scale = measure_scale(index, rows)
        better = max(_mean(dataset, hits, names) for hits in legs)
        means = []
        for method in tried:
            means.append(_mean(dataset, method.fuse(legs, asked, index, scale), names))
            advance("try weights", 1, len(tried))
    return means, better


def _mean(dataset: Dataset, hits: Hits, names: Sequence[str]) -> float:
    run: Run = {}
    for query, rows, scores in zip(dataset.judged(), hits.rows, hits.scores, strict=True):
        found = rows[:DEEP][rows[:DEEP] != NO_ROW]
        run[query] = ranking(query, [names[row] for row in found], scores[: len(found)])
    return float(per_query(run, dataset.qrels, [MEASURE])[MEASURE].mean())


def show(gains: Mapping[Weights, Mapping[str, float]], console: Console) -> None:
    """`gains`: of each combination, on each collection, over the better leg."""
    default = tuple((name, getattr(Feedback, name)) for name in GRID)
    table = Table(box=box.SIMPLE, title="Gain over the better leg, nDCG@10")
    for column in ("collection", "default", "held out", "weights that the others choose"):
        table.add_column(column, justify="right" if column in ("default", "held out") else "left")
    held_out = []
    for name in gains[default]:
        chosen = max(gains, key=lambda w: np.mean([g for n, g in gains[w].items() if n != name]))
        held_out.append(gains[chosen][name])
        weights = ", ".join(f"{key} {value:g}" for key, value in chosen)
        table.add_row(name, f"{gains[default][name]:+.1%}", f"{held_out[-1]:+.1%}", weights)
    mean = float(np.mean(list(gains[default].values())))
    table.add_row("mean", f"{mean:+.2%}", f"{np.mean(held_out):+.2%}", "")
    console.print(table)
    moved = Table(box=box.SIMPLE, title="Mean gain of the default with one weight moved")
    moved.add_column("weight")
    moved.add_column("mean gain", justify="right")
    for i, (name, values) in enumerate(GRID.items()):
        for value in values:
            there = (*default[:i], (name, value), *default[i + 1 :])
            moved.add_row(f"{name} {value:g}", f"{np.mean(list(gains[there].values())):+.2%}")
    console.print(moved)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    combinations: list[Weights] = [
        tuple(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    gains: dict[Weights, dict[str, float]] = {weights: {} for weights in combinations}
    tried = [replace(Feedback(), **dict(weights)) for weights in combinations]
    for folder in options.folders:
        means, better = measure(folder, options.cache, tried)
        for weights, mean in zip(combinations, means, strict=True):
            gains[weights][folder.name] = mean / better - 1
    show(gains, Console())


if __name__ == "__main__":
    main()
