"""The result of one evaluation: a JSON file, and a folder that also holds runs and texts.

A result folder has `results.json`, one TREC run per mode (`hybrid.run`), `qrels.tsv`,
`queries.jsonl` and `passages.jsonl` (the texts of the first passages of every query).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.datasets import QUERIES, Qrels
from eval.runs import Ranking, write_trec
from rag.errors import EvaluationError

RESULTS = "results.json"
PASSAGES = "passages.jsonl"
QRELS = "qrels.tsv"
TOP = 10
"""How many passages of each query keep their text in a result folder."""
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured on one data set.

    `results` maps mode to measure to mean, `intervals` the same to its 95 % bootstrap interval,
    `per_query` the same to scores in the order of `query_ids`. `latency_ms` maps mode to p50,
    p95, p99 and n, of one query at a time; `recall_at_depth` maps mode to depth to mean recall.
    `system` says what was evaluated, `notes` what a reader should know of the data. `folder` is
    the result folder it was read from, if it was.
    """

    dataset: str
    split: str
    query_ids: list[str]
    results: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    per_query: dict[str, dict[str, list[float]]]
    recall_at_depth: dict[str, dict[int, float]] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None

    @property
    def modes(self) -> list[str]:
        return list(self.results)

    def scores(self, mode: str, measure: str) -> NDArray[np.float64]:
        """float64 (len(query_ids),); EvaluationError if that was not measured."""
        if mode not in self.per_query:
            raise EvaluationError(
                f"{self.dataset} has no mode '{mode}'; it has {', '.join(self.modes)}"
            )
        if measure not in self.per_query[mode]:
            raise EvaluationError(
                f"{self.dataset} has no measure '{measure}'; it has"
                f" {', '.join(self.per_query[mode])}"
            )
        return np.array(self.per_query[mode][measure], dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data, scores to six decimals."""
        raw = {
            "dataset": self.dataset,
            "results": self.results,
            "split": self.split,
            "queries": len(self.query_ids),
            "intervals": self.intervals,
            "latency_ms": self.latency_ms,
            "recall_at_depth": self.recall_at_depth,
            "system": self.system,
            "notes": self.notes,
            "query_ids": self.query_ids,
            "per_query": self.per_query,
        }
        rounded: dict[str, Any] = _rounded(raw)
        return rounded


def write_result(path: Path, result: Result) -> None:
    """Writes the JSON file; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_folder(
    folder: Path,
    result: Result,
    runs: Mapping[str, Mapping[str, Ranking]],
    queries: Mapping[str, str],
    qrels: Qrels,
    texts: Mapping[str, tuple[str, str]],
) -> None:
    """Writes a result folder; `texts` maps document id to (title, text)."""
    write_result(folder / RESULTS, result)
    for mode, run in runs.items():
        write_trec(folder / f"{mode}.run", run, tag=f"{result.dataset}-{mode}")
    asked = ({"_id": q, "text": queries[q]} for q in result.query_ids if q in queries)
    _write_lines(folder / QUERIES, asked)
    passages = ({"_id": d, "title": title, "text": text} for d, (title, text) in texts.items())
    _write_lines(folder / PASSAGES, passages)
    with (folder / QRELS).open("w", encoding="utf-8", newline="\n") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query_id, judged in qrels.items():
            file.writelines(f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in judged.items())


def read_result(path: Path) -> Result:
    """The result in a JSON file or in a result folder; raises EvaluationError."""
    file = path / RESULTS if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(
            f"{file} cannot be read ({error.strerror}); name a folder of --runs or a file of --json"
        ) from None
    except ValueError as error:
        raise EvaluationError(f"{file} is not JSON ({error}); evaluate again") from None
    try:
        result = Result(
            dataset=raw["dataset"],
            split=raw["split"],
            query_ids=raw["query_ids"],
            results=raw["results"],
            intervals={
                mode: {name: (pair[0], pair[1]) for name, pair in by_name.items()}
                for mode, by_name in raw["intervals"].items()
            },
            per_query=raw["per_query"],
            recall_at_depth={
                mode: {int(depth): value for depth, value in curve.items()}
                for mode, curve in raw["recall_at_depth"].items()
            },
            latency_ms=raw["latency_ms"],
            system=raw["system"],
            notes=raw["notes"],
            folder=path if path.is_dir() else None,
        )
        lengths = {len(s) for by_name in result.per_query.values() for s in by_name.values()}
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise EvaluationError(
            f"{file} is no evaluation result ({error!r}); write one with rag-eval retrieval --json"
        ) from None
    if lengths - {len(result.query_ids)}:
        raise EvaluationError(f"{file} has scores without queries; evaluate again")
    return result


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
