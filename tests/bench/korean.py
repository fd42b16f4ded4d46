"""nDCG@10 of the ways to cut Korean into terms, with paired tests of the default.

    python tests/bench/korean.py [--markdown FOLDER …] [DIR …]

DIR is a collection in BEIR's layout. A Markdown folder becomes one: each section is a passage, its
heading (where it has enough Korean and occurs once) the query that has to find it. `postings` is
what the index grows with; p and wins/losses compare the default with the analyzer of the line.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from eval.datasets import Qrels, load_beir
from eval.measures import Float64, per_query
from eval.runs import ranking
from eval.statistics import compare_paired
from rag.index.analyzer import Analyzer, make_analyzer
from rag.index.sparse import SparseLeg, build_sparse
from rag.types import NO_ROW

MEASURE = "nDCG@10"
DEPTH = 100
_HANGUL = re.compile(r"[가-힣]")
_CODE = re.compile(r"```.*?```", re.S)
_HEADING = re.compile(r"(?m)^#{1,4} +(.+)$")
_MARKUP = re.compile(r"\{ *#.*?\}|\(.*?\)|[`*#\[\]{}]")

Collection = tuple[Mapping[str, str], Mapping[str, str], Qrels]
"""Passages and queries by id, and judgements."""


def analyzers() -> dict[str, Analyzer]:
    """The default last."""
    return {
        "whitespace": make_analyzer("whitespace"),
        "bigrams": make_analyzer("cjk"),
        "kiwi": make_analyzer("auto", korean="kiwi"),
        "kiwi and bigrams (auto)": make_analyzer(),
    }


def read_beir(folder: Path) -> Collection:
    dataset = load_beir(folder)
    queries = {q: dataset.queries[q] for q in dataset.judged()}
    return {line.doc_id: line.passage for line in dataset.corpus()}, queries, dataset.qrels


def read_headings(folder: Path) -> Collection:
    """Sections with at least 60 syllables, found by their headings of at least 4."""
    passages, headings = {}, {}
    for file in sorted(folder.rglob("*.md")):
        text = _CODE.sub("", file.read_text(encoding="utf-8", errors="replace"))
        parts = _HEADING.split(text)
        for i in range(1, len(parts) - 1, 2):
            if len(_HANGUL.findall(parts[i + 1])) < 60:
                continue
            name = f"{file.relative_to(folder)}#{i}"
            passages[name] = parts[i + 1].strip()
            heading = _MARKUP.sub(" ", parts[i]).strip()
            if len(_HANGUL.findall(heading)) >= 4:
                headings[name] = heading
    seen = Counter(headings.values())
    queries = {name: heading for name, heading in headings.items() if seen[heading] == 1}
    return passages, queries, {name: {name: 1} for name in queries}


def measure(found: Collection, analyzer: Analyzer) -> tuple[Float64, int, float]:
    """Scores by query, postings, and milliseconds of analysis and search per query."""
    passages, queries, qrels = found
    texts = [unicodedata.normalize("NFC", text) for text in passages.values()]
    ids = list(passages)
    with tempfile.TemporaryDirectory() as work:
        reference = build_sparse(Path(work), analyzer.batch(texts), weight=analyzer.weight)
        leg = SparseLeg.open(Path(work), reference)
        asked = [unicodedata.normalize("NFC", text) for text in queries.values()]
        started = time.perf_counter()
        hits = leg.search([analyzer.terms(text) for text in asked], DEPTH, None)
        spent = (time.perf_counter() - started) * 1e3 / len(asked)
    run = {}
    for query_id, rows, scores in zip(queries, hits.rows, hits.scores, strict=True):
        rows = rows[rows != NO_ROW]
        # A heading's id is its passage's: `ranking` would leave that passage out.
        run[query_id] = ranking("", [ids[row] for row in rows], scores[: len(rows)])
    return per_query(run, qrels, [MEASURE])[MEASURE], reference["counts"]["postings"], spent


def show(name: str, found: Collection, console: Console) -> None:
    table = Table(
        box=box.SIMPLE, title=f"{name}: {len(found[0])} passages, {len(found[1])} queries"
    )
    for column in ("analyzer", MEASURE, "postings", "ms/query", "default", "p", "wins/losses"):
        table.add_column(column, justify="left" if column == "analyzer" else "right")
    measured = {label: measure(found, analyzer) for label, analyzer in analyzers().items()}
    default = list(measured.values())[-1][0]
    for label, (scores, postings, spent) in measured.items():
        cells = ("–", "–", "–")
        if scores is not default:
            test = compare_paired(scores, default)
            cells = (f"{test.difference:+.4f}", f"{test.p:.4f}", f"{test.wins}/{test.losses}")
        table.add_row(label, f"{scores.mean():.4f}", str(postings), f"{spent:.2f}", *cells)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="DIR")
    parser.add_argument("--markdown", type=Path, action="append", default=[], metavar="FOLDER")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        show(folder.name, read_beir(folder), Console())
    for folder in options.markdown:
        show(f"{folder.name}, headings", read_headings(folder), Console())


if __name__ == "__main__":
    main()
