"""Two results side by side: paired tests, and the queries that changed most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.datasets import QUERIES, read_qrels
from eval.results import PASSAGES, QRELS, Result, read_result
from eval.runs import Run, read_trec
from eval.statistics import SEED, Comparison, Float64, compare_paired
from rag.errors import EvaluationError

MODES = ("hybrid", "dense", "sparse")


class Side(NamedTuple):
    """One mode of one result: what is compared."""

    result: Result
    mode: str

    @property
    def label(self) -> str:
        return f"{self.result.dataset} {self.mode}"


class Shown(NamedTuple):
    """A passage as a reader sees it; `grade` is its judgement, or None; `legs` maps the other
    modes that were evaluated to the rank it has there.
    """

    rank: int
    doc_id: str
    title: str
    text: str
    grade: int | None
    legs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """A query that the two sides answer differently; passages are each side's first ones."""

    query_id: str
    text: str
    score_a: float
    score_b: float
    passages_a: tuple[Shown, ...]
    passages_b: tuple[Shown, ...]


def parse_side(wanted: str) -> tuple[Path, str | None]:
    """The path and the mode of 'PATH' or 'PATH:MODE'; modes are hybrid, dense and sparse."""
    path, colon, mode = wanted.rpartition(":")
    if colon and mode in MODES and path:
        return Path(path), mode
    return Path(wanted), None


def pairs(a: str, b: str) -> list[tuple[Side, Side]]:
    """What 'PATH[:MODE]' against 'PATH[:MODE]' compares: the named modes, or each mode that both
    results have. Raises EvaluationError if they are not of the same queries.
    """
    path_a, mode_a = parse_side(a)
    path_b, mode_b = parse_side(b)
    result_a, result_b = read_result(path_a), read_result(path_b)
    check_same_queries(result_a, result_b)
    if mode_a or mode_b:
        mode_a, mode_b = mode_a or mode_b or "", mode_b or mode_a or ""
        return [(Side(result_a, mode_a), Side(result_b, mode_b))]
    shared = [mode for mode in result_a.modes if mode in result_b.results]
    if not shared:
        raise EvaluationError(f"{a} and {b} have no mode in common; name them as PATH:MODE")
    return [(Side(result_a, mode), Side(result_b, mode)) for mode in shared]


def check_same_queries(a: Result, b: Result) -> None:
    """Raises EvaluationError unless both were measured on the same queries of one data set."""
    if a.dataset != b.dataset or a.split != b.split:
        raise EvaluationError(
            f"one result is of {a.dataset} ({a.split}), the other of {b.dataset} ({b.split});"
            " compare results of the same data set"
        )
    if sorted(a.query_ids) != sorted(b.query_ids):
        different = len(set(a.query_ids) ^ set(b.query_ids))
        raise EvaluationError(
            f"the results of {a.dataset} differ in {different} queries; evaluate both on the same"
        )


def paired_scores(a: Side, b: Side, measure: str) -> tuple[Float64, Float64]:
    """Both sides' scores in the order of A's queries."""
    place = {query_id: i for i, query_id in enumerate(b.result.query_ids)}
    order = np.array([place[q] for q in a.result.query_ids], dtype=np.int64)
    return a.result.scores(a.mode, measure), b.result.scores(b.mode, measure)[order]


def compare(a: Side, b: Side, measure: str, *, seed: int = SEED) -> Comparison:
    """B against A, paired by query."""
    return compare_paired(*paired_scores(a, b, measure), seed=seed)


def biggest_changes(a: Side, b: Side, measure: str, count: int, *, top: int = 3) -> list[Change]:
    """The `count` queries whose score changed most, largest change first, ties by query id.

    Texts come from the result folders; without folders, ids and scores alone.
    """
    scores_a, scores_b = paired_scores(a, b, measure)
    ids = a.result.query_ids
    order = sorted(range(len(ids)), key=lambda i: (-abs(scores_b[i] - scores_a[i]), ids[i]))
    chosen = [i for i in order[:count] if scores_a[i] != scores_b[i]]
    if not chosen:
        return []
    left, right = _Folder(a), _Folder(b)
    return [
        Change(
            query_id=ids[i],
            text=left.queries.get(ids[i]) or right.queries.get(ids[i], ""),
            score_a=float(scores_a[i]),
            score_b=float(scores_b[i]),
            passages_a=left.shown(ids[i], top),
            passages_b=right.shown(ids[i], top),
        )
        for i in chosen
    ]


def to_json(comparison: Comparison) -> dict[str, Any]:
    return {**asdict(comparison), "n": comparison.n}


class _Folder:
    """The runs and texts of one side, as far as its result folder has them."""

    def __init__(self, side: Side) -> None:
        folder = side.result.folder
        self.queries: Mapping[str, str] = {}
        self._texts: Mapping[str, tuple[str, str]] = {}
        self._runs: Mapping[str, Run] = {}
        self._mode = side.mode
        self._qrels: Mapping[str, Mapping[str, int]] = {}
        if folder is None:
            return
        files = {mode: folder / f"{mode}.run" for mode in side.result.modes}
        self._runs = {mode: read_trec(file) for mode, file in files.items() if file.is_file()}
        self._qrels = read_qrels(folder / QRELS) if (folder / QRELS).is_file() else {}
        self.queries = {line["_id"]: line["text"] for line in _lines(folder / QUERIES)}
        self._texts = {
            line["_id"]: (line["title"], line["text"]) for line in _lines(folder / PASSAGES)
        }

    def shown(self, query_id: str, top: int) -> tuple[Shown, ...]:
        found = self._runs.get(self._mode, {}).get(query_id)
        if found is None:
            return ()
        ranks = {
            mode: {doc_id: rank for rank, doc_id in enumerate(run[query_id].doc_ids, 1)}
            for mode, run in self._runs.items()
            if mode != self._mode and query_id in run
        }
        grades = self._qrels.get(query_id, {})
        shown = []
        for rank, doc_id in enumerate(found.doc_ids[:top], 1):
            title, text = self._texts.get(doc_id, ("", ""))
            legs = {mode: places[doc_id] for mode, places in ranks.items() if doc_id in places}
            shown.append(Shown(rank, doc_id, title, text, grades.get(doc_id), legs))
        return tuple(shown)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
