"""Chooses an index for a corpus: by count, memory and wanted recall, tuned against exact search.

Candidates are tried in an order that count and memory decide, the fastest to search first. Each is
built, its search options are raised until it finds the wanted share of the exact ten best, and
then it is measured. The first that gets there is kept; where none does, the one with the best
recall is. What was chosen and measured goes into the manifest's `measured`, what was asked for
into the version: the same input has the same version, whatever a machine measured.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rag.errors import ConfigurationError
from rag.index.dense.build import FILE, build_dense, write_dense
from rag.index.dense.leg import DenseLeg
from rag.index.dense.sample import Sample, measure, measure_exact, recall, take_sample
from rag.index.dense.spec import SEARCHED_WITH, Spec, make_spec
from rag.types import Float32

AUTO = "auto"
RECALL_TARGET = 0.98
EXACT_UP_TO = 20_000
"""So few rows are scanned in about a millisecond: no index is faster enough to lose recall for."""
EF_SEARCH = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
NPROBE = (4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512)
CANDIDATES = (32, 64, 96, 128, 192, 256)
"""More nominees cost more than more lists do, for the same recall."""
MOST_CANDIDATES = 1024
TRIALS = Path("dense.trials")

Note = Callable[..., None]
"""Called with a message and its fields after each trial."""


class Built(NamedTuple):
    """`reference` enters the version, `measured` does not; `met` says whether the wanted recall
    was reached.
    """

    reference: dict[str, Any]
    measured: dict[str, Any]
    met: bool


def build_chosen(
    folder: Path,
    vectors: Float32,
    *,
    kind: str = AUTO,
    recall_target: float | None = None,
    memory_budget: int | None = None,
    queries: Float32 | None = None,
    threads: int | None = None,
    gpus: Sequence[int] = (),
    note: Note | None = None,
    **options: Any,
) -> Built:
    """Writes the dense leg of float32 (n, d) unit vectors below `folder`.

    'auto' chooses the index, with search options for `recall_target` (0 to 1, default 0.98), and
    keeps what a search walks over within `memory_budget` bytes. Another `kind` is built as
    `build_dense` builds it; with a `recall_target` its search options are tuned. `queries`,
    float32 (m, d), are what to tune for; without, see `take_sample`. `gpus` are the devices to
    train and build on, see `write_dense`. Raises ConfigurationError for
    demands that nothing meets or that do not go together, and what `build_dense` raises.
    """
    _check(kind, recall_target, memory_budget, options)
    if kind != AUTO and recall_target is None:
        reference = build_dense(folder, vectors, threads=threads, gpus=gpus, kind=kind, **options)
        return Built(reference, {}, True)
    target = RECALL_TARGET if recall_target is None else recall_target
    rows, dimension = vectors.shape
    if kind == AUTO:
        specs = candidates(dimension, rows, memory_budget)
        reference = {
            "kind": AUTO, "dimension": dimension, "metric": "inner_product",
            "recall_target": target, "memory_budget": memory_budget,
        }  # fmt: skip
    else:
        specs = [make_spec(dimension, rows, kind=kind, **options)]
        reference = _without_search(specs[0]) | {"recall_target": target}
    sample = take_sample(vectors, queries, threads=threads)
    try:
        write = partial(write_dense, threads=threads, gpus=gpus)
        trials = _try_all(folder / TRIALS, vectors, specs, sample, target, write, threads, note)
        best = max(trials, key=lambda trial: min(trial.recall, target))
        (folder / FILE).parent.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / FILE.parent, ignore_errors=True)
        (best.folder / FILE.parent).rename(folder / FILE.parent)
    finally:
        shutil.rmtree(folder / TRIALS, ignore_errors=True)
    table = [*measure_exact(vectors, sample, threads=threads), *(t.line for t in trials)]
    measured = {
        "chosen": _without_search(best.spec),
        "search": _search(best.spec),
        "recall_target": target,
        "met": best.recall >= target,
        "sample": sample.how,
        "table": [line | {"chosen": line is best.line} for line in table],
    }
    return Built(reference, measured, best.recall >= target)


def candidates(dimension: int, rows: int, memory_budget: int | None) -> list[Spec]:
    """What 'auto' tries, in order: all that keep within `memory_budget` bytes.

    Raises ConfigurationError where nothing does, with the least that would.
    """
    if rows <= EXACT_UP_TO:
        wanted: list[dict[str, Any]] = [
            {"kind": "flat", "storage": storage} for storage in ("float32", "float16", "int8")
        ]
    else:
        wanted = [
            {"kind": "ivf", "storage": "pq4" if dimension % 2 == 0 else "int8"},
            {"kind": "hnsw", "storage": "int8"},
            {"kind": "ivf", "storage": "pq"},
        ]
        # Scores as exact as a scan's, and the next build need not embed again what has not changed.
        wanted = [{**options, "refine": "float32"} for options in wanted]
    specs = [make_spec(dimension, rows, **options) for options in wanted]
    if memory_budget is None:
        return specs
    fitting = [spec for spec in specs if memory_needed(spec, rows) <= memory_budget]
    if not fitting:
        least = min(memory_needed(spec, rows) for spec in specs)
        raise ConfigurationError(
            f"no index of {rows} passages fits a memory budget of {memory_budget} bytes: the"
            f" smallest takes {least}; raise --memory-budget, or use an encoder of fewer dimensions"
        )
    return fitting


def memory_needed(spec: Spec, rows: int) -> int:
    """Bytes that a search walks over: lists or graph, and their vectors; not the finer copy."""
    coarse = 4 * spec.dimension * spec.numbers.get("lists", 0)
    return round(rows * spec.resident_bytes) + coarse


class _Trial(NamedTuple):
    folder: Path
    spec: Spec
    recall: float
    line: dict[str, Any]


def _try_all(
    folder: Path,
    vectors: Float32,
    specs: list[Spec],
    sample: Sample,
    target: float,
    write: Callable[[Path, Float32, Spec], None],
    threads: int | None,
    note: Note | None,
) -> list[_Trial]:
    """One trial after the other, until one reaches `target`."""
    trials: list[_Trial] = []
    for number, spec in enumerate(specs):
        place = folder / str(number)
        began = time.monotonic()
        write(place, vectors, spec)
        seconds = time.monotonic() - began
        tuned, reached = tune(place, spec, sample, target, threads=threads)
        leg = DenseLeg.open(place, tuned.reference(), threads=threads)
        line = {"index": spec.name, "search": _search(tuned), **measure(leg, sample)}
        line |= {
            "bytes_per_passage": _file_bytes(place) / max(1, len(vectors)),
            "build_s": round(seconds, 3),
        }
        trials.append(_Trial(place, tuned, reached, line))
        if note is not None:
            note("dense index tried", **line)
        if reached >= target:
            break
    return trials


def tune(
    folder: Path, spec: Spec, sample: Sample, target: float, *, threads: int | None = None
) -> tuple[Spec, float]:
    """`spec` with the least search options whose recall@10 reaches `target`, and that recall; with
    those of the highest recall where none reaches it.
    """

    def measured(steps: Iterable[Spec]) -> tuple[Spec, float]:
        best, best_recall = spec, -1.0
        for tried in steps:
            leg = DenseLeg.open(folder, tried.reference(), threads=threads)
            reached = recall(leg, sample, 10)
            if reached > best_recall:
                best, best_recall = tried, reached
            if reached >= target:
                break
        return best, best_recall

    best, reached = measured(_steps(spec))
    if spec.kind == "ivf" and reached >= target:
        return measured(_with(best, candidates=count) for count in CANDIDATES)
    return best, reached


def _steps(spec: Spec) -> Iterator[Spec]:
    """The same index with ever more search effort."""
    if spec.kind == "hnsw":
        yield from (_with(spec, ef_search=value) for value in EF_SEARCH)
    elif spec.kind == "ivf":
        lists = spec.numbers["lists"]
        for value in sorted({min(value, lists) for value in NPROBE}):
            yield _with(spec, nprobe=value, candidates=CANDIDATES[-1])
        yield _with(spec, nprobe=min(NPROBE[-1], lists), candidates=MOST_CANDIDATES)
    else:
        yield spec


def _with(spec: Spec, **numbers: int) -> Spec:
    return replace(spec, numbers={**spec.numbers, **numbers})


def _search(spec: Spec) -> dict[str, int]:
    return {name: spec.numbers[name] for name in SEARCHED_WITH[spec.kind]}


def _without_search(spec: Spec) -> dict[str, Any]:
    left_out = SEARCHED_WITH[spec.kind]
    return {name: value for name, value in spec.reference().items() if name not in left_out}


def _file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / FILE.parent).iterdir())


def _check(
    kind: str, target: float | None, memory_budget: int | None, options: Mapping[str, Any]
) -> None:
    if target is not None and not 0 < target <= 1:
        raise ConfigurationError(f"the recall target is {target}; use a share above 0, at most 1")
    if memory_budget is not None and memory_budget < 1:
        raise ConfigurationError(f"the memory budget is {memory_budget} bytes; use 1 or more")
    if kind == AUTO and options:
        named = ", ".join(sorted(options))
        raise ConfigurationError(f"'auto' chooses {named} itself; name the kind of index to set it")
    if kind != AUTO and memory_budget is not None:
        raise ConfigurationError("a memory budget is for 'auto' to choose by; leave it out")
    tuned = [name for name in options if name in SEARCHED_WITH.get(kind, ())]
    if target is not None and tuned:
        raise ConfigurationError(
            f"{', '.join(tuned)} would be tuned for the recall target; give one or the other"
        )
