"""One evaluation: rank every judged query in every mode, measure, and put it into a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.datasets import Dataset
from eval.measures import DEPTHS, MEASURES, latency, means, per_query, recall_at_depths
from eval.rankers import Ranker, Texts
from eval.results import Result, write_folder
from eval.runs import Run
from eval.statistics import bootstrap_interval
from eval.vectors import Advance
from rag.errors import EvaluationError
from rag.types import Mode

MODES = (Mode.SPARSE, Mode.DENSE, Mode.HYBRID)
TIMED = 100
_INTERVAL_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A result together with what it was made from."""

    result: Result
    dataset: Dataset
    runs: dict[str, Run]
    texts: Texts

    def write(self, folder: Path) -> None:
        """Writes the result folder (see eval/results.py)."""
        write_folder(
            folder, self.result, self.runs, self.dataset.queries, self.dataset.qrels, self.texts
        )


def evaluate(
    dataset: Dataset,
    ranker: Ranker,
    *,
    modes: Sequence[Mode] = MODES,
    measures: Sequence[str] = MEASURES,
    timed: int = TIMED,
    advance: Advance = lambda stage, done, total: None,
) -> Evaluation:
    """Evaluates `ranker` on the judged queries of `dataset`.

    Means are over all judged queries; those that find nothing score 0. `timed` queries, spread
    evenly over the set, are then asked one by one for their latency; 0 leaves that out. Raises
    EvaluationError, and what the ranker raises.
    """
    notes = _notes(dataset)
    texts: Texts = {}
    ranked = ranker.rank(dataset, modes, texts, advance)
    runs = {str(mode): run for mode, run in ranked.items()}
    scores = {mode: per_query(run, dataset.qrels, measures) for mode, run in runs.items()}
    advance("measure", 1, 1)
    asked = [dataset.queries[q] for q in dataset.judged()]
    step = max(1, len(asked) // timed) if timed else 1
    sample = asked[::step][:timed]
    system = dict(ranker.system)
    result = Result(
        dataset=dataset.name,
        split=dataset.split,
        query_ids=list(dataset.qrels),
        results={mode: means(by_name) for mode, by_name in scores.items()},
        intervals={
            mode: {
                name: bootstrap_interval(values, resamples=_INTERVAL_RESAMPLES)
                for name, values in by_name.items()
            }
            for mode, by_name in scores.items()
        },
        per_query={
            mode: {name: values.tolist() for name, values in by_name.items()}
            for mode, by_name in scores.items()
        },
        recall_at_depth={
            mode: recall_at_depths(run, dataset.qrels, _depths(run)) for mode, run in runs.items()
        },
        latency_ms={str(mode): latency(ranker.time(sample, mode)) for mode in modes if sample},
        system=system,
        notes=notes + _degraded(system, len(asked) * len(runs)),
    )
    return Evaluation(result, dataset, runs, texts)


def parse_modes(wanted: str) -> list[Mode]:
    """The modes in 'sparse,dense,hybrid', in that order, each once; raises EvaluationError."""
    modes: list[Mode] = []
    for name in wanted.split(","):
        try:
            mode = Mode(name.strip().lower())
        except ValueError:
            raise EvaluationError(
                f"there is no mode '{name.strip()}'; use some of {', '.join(MODES)}"
            ) from None
        if mode not in modes:
            modes.append(mode)
    return modes


def _notes(dataset: Dataset) -> list[str]:
    """What a reader of the scores should know of the data; raises if nothing can be asked."""
    searched, unsearched = dataset.judged(), dataset.unsearched()
    if not searched:
        raise EvaluationError(
            f"no judgement of {dataset.name} ({dataset.split}) is for one of its queries; check"
            " that queries and judgements belong together"
        )
    notes = []
    if unsearched:
        notes.append(
            f"{len(unsearched)} judged queries have no text and score 0, such as '{unsearched[0]}'"
        )
    return notes


def _degraded(system: Mapping[str, Any], searches: int) -> list[str]:
    """What a reader should know where a stage beside the search failed."""
    failed = system.get("degraded", 0)
    return [f"{failed} of {searches} searches were degraded: a stage failed"] if failed else []


def _depths(run: Run) -> list[int]:
    """The depths at which the curve of recall still may rise: up to the longest ranking."""
    longest = max((len(found.doc_ids) for found in run.values()), default=0)
    beyond = [depth for depth in DEPTHS if depth >= longest]
    return [depth for depth in DEPTHS if depth < longest] + beyond[:1]
