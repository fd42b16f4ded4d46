"""nDCG@10 of every fusion on collections in BEIR's layout, with a paired test of the default.

    python tests/bench/fusion.py --cache FOLDER DIR [DIR …]

Each collection is embedded once and kept in the cache. `p` and wins/losses compare the default
with the method of the column, query by query.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from eval.collection import IndexOptions, build_collection
from eval.datasets import load_beir
from eval.measures import Float64, per_query
from eval.progress import make_advance
from eval.rankers import IndexRanker
from eval.statistics import compare_paired
from eval.vectors import LazyEmbedder, VectorCache
from rag.retrieval.fusion import DEFAULT, METHODS
from rag.types import Mode

MEASURE = "nDCG@10"


def measure(folder: Path, cache: Path) -> dict[str, Float64]:
    """Each leg's and each fusion's scores, query by query."""
    dataset = load_beir(folder)
    scores: dict[str, Float64] = {}
    with tempfile.TemporaryDirectory() as work, make_advance() as advance:
        embedder = LazyEmbedder("default", exports=cache / "encoders")
        vectors = VectorCache(cache / "vectors", embedder.runs_as)
        index = build_collection(
            dataset, Path(work), embedder, IndexOptions(), vectors=vectors, advance=advance
        )

        def rank(name: str, mode: Mode, method: str) -> None:
            ranker = IndexRanker(index, embedder, fusion={"method": method}, vectors=vectors)
            run = ranker.rank(dataset, [mode], {}, advance)[mode]
            scores[name] = per_query(run, dataset.qrels, [MEASURE])[MEASURE]

        for leg in (Mode.SPARSE, Mode.DENSE):
            rank(str(leg), leg, str(DEFAULT["method"]))
        for method in METHODS:
            rank(method, Mode.HYBRID, method)
    return scores


def show(name: str, scores: dict[str, Float64], console: Console) -> None:
    table = Table(box=box.SIMPLE, title=name)
    for column in ("method", MEASURE, "default", "p", "wins/losses"):
        table.add_column(column, justify="left" if column == "method" else "right")
    default = scores[str(DEFAULT["method"])]
    for method, values in scores.items():
        found = compare_paired(values, default)
        better = f"{found.mean_b / found.mean_a - 1:+.1%}" if found.mean_a else "–"
        same = values is default
        shown = (
            ("–", "–", "–") if same else (better, f"{found.p:.4f}", f"{found.wins}/{found.losses}")
        )
        table.add_row(method, f"{values.mean():.4f}", *shown)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    for folder in options.folders:
        show(folder.name, measure(folder, options.cache), Console())


if __name__ == "__main__":
    main()
