"""Expected scores as data: `golden/*.yaml` says what each set should give; a rerun finds drifts.

A file names its `dataset` ('sample', or a folder below --data), its `split`, the `conditions`
under which it is evaluated (each a set of options of `rag-eval retrieval`), and per condition and
mode the `expected` mean of each measure. `tolerance` is how far a mean may lie from it, either
way: a score that rises has drifted too, and is written down anew.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from eval.commands import Target, evaluate_target
from eval.datasets import SAMPLE
from eval.results import Result
from eval.vectors import Advance
from rag.errors import EvaluationError

FOLDER = Path(__file__).parent / "golden"
SAMPLE_NAME = "sample"
_MEASURES = ("nDCG@10", "Recall@100", "MRR@10", "MAP")
_TOLERANCE = 0.002
_KEYS = {"dataset", "split", "tolerance", "conditions"}
_OPTIONS = {"encoder", "analyzer", "dense", "method", "k1", "b", "backend", "fusion", "depth"}
Scores = Mapping[str, Mapping[str, float]]
"""mode -> measure -> mean."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to evaluate a set, and what that should give; `options` as on the command line."""

    name: str
    options: Mapping[str, Any]
    expected: Scores


@dataclass(frozen=True, slots=True)
class Golden:
    """One file of expected scores."""

    path: Path
    dataset: str
    split: str
    tolerance: float
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One expected score beside the one that was measured; `expected` is None if it is new."""

    dataset: str
    condition: str
    mode: str
    measure: str
    expected: float | None
    measured: float
    tolerance: float

    @property
    def holds(self) -> bool:
        # A last digit that was rounded away is no drift.
        return (
            self.expected is not None
            and abs(self.measured - self.expected) <= self.tolerance + 1e-9
        )


def read_golden(path: Path) -> Golden:
    """Reads one file; raises EvaluationError for anything else than what it should hold."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationError(f"{path} cannot be read ({reason}); correct it") from None
    if not isinstance(raw, dict) or set(raw) != _KEYS or not isinstance(raw["conditions"], dict):
        raise EvaluationError(f"{path} must hold exactly {', '.join(sorted(_KEYS))}; correct it")
    conditions = []
    for name, body in raw["conditions"].items():
        if not isinstance(body, dict) or not isinstance(body.get("expected"), dict):
            raise EvaluationError(f"{path}: condition '{name}' has no 'expected'; correct it")
        options = body.get("options") or {}
        unknown = set(options) - _OPTIONS
        if unknown:
            raise EvaluationError(f"{path}: '{min(unknown)}' is no option of a condition")
        conditions.append(Condition(str(name), options, body["expected"]))
    return Golden(
        path, str(raw["dataset"]), str(raw["split"]), float(raw["tolerance"]), tuple(conditions)
    )


def rerun(
    data: Path | None,
    *,
    only: Sequence[str] = (),
    cache: Path | None = None,
    write: bool = False,
    folder: Path = FOLDER,
    advance: Advance = lambda stage, done, total: None,
) -> list[Check]:
    """Evaluates every set that is there and checks each expected score.

    The sample is always there; other sets are where `data` holds a folder of their name, and are
    left out without `data`. `only` limits the sets, and each of them must then be there. With
    `write`, the files are rewritten with what was measured, and made for sets that `only` names
    and that have none. Raises EvaluationError.
    """
    found = [read_golden(path) for path in sorted(folder.glob("*.yaml"))]
    known = {golden.dataset for golden in found}
    unknown = [name for name in only if name not in known]
    if unknown and not write:
        raise EvaluationError(
            f"there are no expected scores of '{unknown[0]}', only of {', '.join(sorted(known))};"
            " --write makes them"
        )
    found += [_blank(folder, name) for name in unknown]
    checks: list[Check] = []
    for golden in found:
        if only and golden.dataset not in only:
            continue
        if golden.dataset != SAMPLE_NAME and (data is None or not (data / golden.dataset).is_dir()):
            if only or data is not None:
                raise EvaluationError(
                    f"the collection '{golden.dataset}' is not below --data; name the folder that"
                    " holds it, or leave it out with --only"
                )
            continue
        measured = _measure(golden, data, cache, advance)
        if write:
            _write(golden, measured)
            golden = read_golden(golden.path)
        checks += _checks(golden, measured)
    if not checks:
        raise EvaluationError("no set was checked; name --data or --only sample")
    return checks


def show_drifts(console: Console, checks: Sequence[Check]) -> bool:
    """Prints every score that drifted, and a line for the whole; True if none did."""
    drifted = [check for check in checks if not check.holds]
    if drifted:
        table = Table(title="drifted", title_justify="left", box=box.SIMPLE_HEAD)
        for name in ("set", "condition", "mode", "measure"):
            table.add_column(name)
        for name in ("expected", "measured", "difference", "tolerance"):
            table.add_column(name, justify="right")
        for c in drifted:
            expected = "none" if c.expected is None else f"{c.expected:.4f}"
            difference = "" if c.expected is None else f"{c.measured - c.expected:+.4f}"
            cells = (expected, f"{c.measured:.4f}", difference, f"{c.tolerance:g}")
            table.add_row(c.dataset, c.condition, c.mode, c.measure, *cells)
        console.print(table)
    sets = ", ".join(dict.fromkeys(check.dataset for check in checks))
    console.print(f"{len(checks) - len(drifted)} of {len(checks)} scores are as expected ({sets})")
    return not drifted


def _blank(folder: Path, name: str) -> Golden:
    """A set's first file: its scores, still to be measured, under the defaults."""
    expected = {mode: dict.fromkeys(_MEASURES, 0.0) for mode in ("sparse", "dense", "hybrid")}
    condition = Condition("default", {}, expected)
    return Golden(folder / f"{name}.yaml", name, "test", _TOLERANCE, (condition,))


def _measure(
    golden: Golden, data: Path | None, cache: Path | None, advance: Advance
) -> dict[str, Result]:
    """The result of each condition."""
    measured = {}
    with tempfile.TemporaryDirectory(prefix="rag-golden-") as work:
        for condition in golden.conditions:
            options = dict(condition.options)
            target = {
                "split": golden.split,
                "fusion": options.pop("fusion", None),
                "depth": options.pop("depth", None),
                "cache": cache,
            }
            if golden.dataset == SAMPLE_NAME:
                bundle = _build_sample(Path(work, condition.name), options, cache)
                named: dict[str, Any] = {"bundle": str(bundle)}
            else:
                running = {"backend": options.pop("backend")} if "backend" in options else {}
                named = {
                    "dataset": Path(data or "", golden.dataset),
                    "indexing": options,
                    "running": running,
                }
            modes = ",".join(condition.expected)
            found = evaluate_target(
                Target(**named, **target), modes=modes, timed=0, advance=advance
            )
            measured[condition.name] = found.result
    return measured


def _build_sample(folder: Path, options: Mapping[str, Any], cache: Path | None) -> Path:
    """The bundle of the sample's documents, made by the indexer's own command."""
    names = {"method": "bm25-method"}
    extra = [f"--{names.get(name, name)}={value}" for name, value in options.items()]
    if cache is not None:
        extra.append(f"--encoder-cache={cache / 'exports'}")
    source, output = str(SAMPLE / "documents"), str(folder)
    command = [sys.executable, "-m", "indexer", "build", "--source", source, "--output", output]
    done = subprocess.run(  # noqa: S603 - our own command, its arguments are not a shell's
        [*command, "--strict", "--quiet", *extra], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EvaluationError(f"the sample cannot be indexed: {reason}")
    return folder


def _checks(golden: Golden, measured: Mapping[str, Result]) -> list[Check]:
    return [
        Check(
            golden.dataset,
            condition.name,
            mode,
            measure,
            expected,
            measured[condition.name].results[mode][measure],
            golden.tolerance,
        )
        for condition in golden.conditions
        for mode, by_name in condition.expected.items()
        for measure, expected in by_name.items()
    ]


def _write(golden: Golden, measured: Mapping[str, Result]) -> None:
    """Puts the measured means, to four decimals, in the place of the expected ones."""
    conditions = {}
    for condition in golden.conditions:
        means = measured[condition.name].results
        conditions[condition.name] = {
            "options": dict(condition.options),
            "expected": {
                mode: {name: round(means[mode][name], 4) for name in by_name}
                for mode, by_name in condition.expected.items()
            },
        }
    raw = {
        "dataset": golden.dataset,
        "split": golden.split,
        "tolerance": golden.tolerance,
        "conditions": conditions,
    }
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    golden.path.write_text(text, encoding="utf-8")
