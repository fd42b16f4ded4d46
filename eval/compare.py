"""Two results side by side: paired tests, what changed most, and the gate before promotion."""

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
from eval.statistics import SEED, Comparison, Float64, bootstrap_means, compare_paired
from eval.statistics import randomisation_p as _randomisation_p
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
    """A passage as a reader sees it; `grade` is its judgement, or None."""

    rank: int
    doc_id: str
    title: str
    text: str
    grade: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """A query that the two sides answer differently; passages are each side's first ones."""

    query_id: str
    text: str
    score_a: float
    score_b: float
    passages_a: tuple[Shown, ...]
    passages_b: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says. `passed` is False where a loss beyond the margin is significant, and,
    with a strict gate, where such a loss is not ruled out. `non_inferior` is True where it is.
    """

    passed: bool
    reason: str
    comparison: Comparison
    p_loss: float
    non_inferior: bool


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


def gate(
    baseline: Float64,
    candidate: Float64,
    *,
    margin: float,
    alpha: float = 0.05,
    strict: bool = False,
    seed: int = SEED,
) -> Verdict:
    """Whether a candidate may replace a baseline, by their scores of the same queries, (n,).

    Fails if the candidate's mean is lower by significantly more than `margin`: a one-sided paired
    randomisation test of the differences plus the margin, at `alpha`. With `strict` it must also
    be non-inferior: the one-sided (1 - alpha) bootstrap bound of the mean difference lies above
    -margin. Walker and Nowacki, J. General Internal Medicine 2011. Raises EvaluationError.
    """
    if not 0 <= margin < 1 or not 0 < alpha < 0.5:
        raise EvaluationError(
            f"margin is {margin:g} and alpha {alpha:g}; use a margin from 0 to 1 and an alpha"
            " above 0 and below 0.5"
        )
    comparison = compare_paired(baseline, candidate, seed=seed)
    differences = candidate - baseline
    p_loss = _randomisation_p(differences + margin, alternative="less", seed=seed)
    worst = float(np.quantile(bootstrap_means(differences, seed=seed), alpha))
    non_inferior = worst > -margin or (worst == 0.0 and margin == 0.0)
    lost = p_loss < alpha and comparison.difference < -margin
    passed = not lost and (non_inferior or not strict)
    if lost:
        why = f"the loss is significantly beyond the margin of {margin:g} (p = {p_loss:.4f})"
    elif non_inferior:
        why = f"a loss beyond the margin of {margin:g} is ruled out (bound {worst:+.4f})"
    else:
        verdict = "not ruled out" if strict else "not significant"
        why = (
            f"a loss beyond the margin of {margin:g} is {verdict}"
            f" (p = {p_loss:.4f}, bound {worst:+.4f})"
        )
    return Verdict(passed, why, comparison, p_loss, non_inferior)


def describe(verdict: Verdict, what: str) -> str:
    """The verdict in one line."""
    c = verdict.comparison
    return (
        f"{'pass' if verdict.passed else 'FAIL'}: {what} {c.mean_a:.4f} -> {c.mean_b:.4f}"
        f" ({c.difference:+.4f}, 95 % {c.low:+.4f} to {c.high:+.4f}, n = {c.n}): {verdict.reason}"
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    return {**asdict(comparison), "n": comparison.n}


class _Folder:
    """The runs and texts of one side, as far as its result folder has them."""

    def __init__(self, side: Side) -> None:
        folder = side.result.folder
        self.queries: Mapping[str, str] = {}
        self._texts: Mapping[str, tuple[str, str]] = {}
        self._run: Run = {}
        self._qrels: Mapping[str, Mapping[str, int]] = {}
        if folder is None:
            return
        run = folder / f"{side.mode}.run"
        self._run = read_trec(run) if run.is_file() else {}
        self._qrels = read_qrels(folder / QRELS) if (folder / QRELS).is_file() else {}
        self.queries = {line["_id"]: line["text"] for line in _lines(folder / QUERIES)}
        self._texts = {
            line["_id"]: (line["title"], line["text"]) for line in _lines(folder / PASSAGES)
        }

    def shown(self, query_id: str, top: int) -> tuple[Shown, ...]:
        if query_id not in self._run:
            return ()
        return tuple(
            Shown(
                rank, doc_id, *self._texts.get(doc_id, ("", "")),
                grade=self._qrels.get(query_id, {}).get(doc_id),
            )
            for rank, doc_id in enumerate(self._run[query_id].doc_ids[:top], 1)
        )  # fmt: skip


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
