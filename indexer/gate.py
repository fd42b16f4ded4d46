"""The gate before a version goes live: `rag-eval` on the user's own queries, in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.progress import Progress
from rag.errors import BuildError, ConfigurationError, GateRefused
from rag.index.manifest import canonical
from rag.index.pointer import Pointer
from rag.index.root import Root
from rag.index.seal import read_manifest
from rag.writes import settle

GATES = "gates"
QUERIES = "queries.jsonl"
QRELS = "qrels"


@dataclass(frozen=True, slots=True)
class EvalGate:
    """A version may go live if `rag-eval gate` lets it pass against the current one.

    `queries` is a JSON Lines file with `_id` and `text`, `qrels` the judgements of documents.
    The measured results and the verdict stay at the root, as `gates/<version>/<time>.json`. The
    first version of a root has nothing to be compared with: it is measured and passes.
    """

    queries: Path
    qrels: Path
    progress: Progress
    measure: str = "nDCG@10"
    margin: float = 0.01
    strict: bool = False

    def __call__(self, folder: Path, root: Root, known: Pointer | None) -> None:
        with tempfile.TemporaryDirectory(prefix="rag-gate-") as work:
            results = Path(work)
            candidate, baseline = results / "candidate.json", results / "baseline.json"
            self.progress.note("gate: measuring the new version")
            self._measure(str(folder), candidate)
            passed, verdict = True, "the first version: there is nothing to compare it with"
            if known is not None:
                self.progress.note("gate: measuring the current version", version=known.version)
                self._measure(root.version_uri(known.version), baseline)
                passed, verdict = self._verdict(baseline, candidate)
            version = read_manifest(folder).version
            where = _keep(root, version, results, known, passed=passed, verdict=verdict)
        self.progress.note("gate passed" if passed else "gate refused", verdict=verdict)
        if not passed:
            raise GateRefused(
                f"version {version} is uploaded but not current: {verdict} (report: {where});"
                f" rag-indexer rollback {root.uri} --to {version} makes it current all the same"
            )

    def _measure(self, bundle: str, into: Path) -> None:
        command = ["retrieval", "--bundle", bundle, "--queries", str(self.queries)]
        command += ["--qrels", str(self.qrels), "--json", str(into), "--timed", "0", "--quiet"]
        command += ["--modes", "hybrid", "--index-cache", str(into.parent / "cache")]
        done = _rag_eval(command)
        if done.returncode != 0:
            raise BuildError(f"the gate could not measure {bundle}: {_last_line(done.stderr)}")

    def _verdict(self, baseline: Path, candidate: Path) -> tuple[bool, str]:
        command = ["gate", "--baseline", str(baseline), "--candidate", str(candidate)]
        command += ["--measure", self.measure, "--margin", str(self.margin)]
        done = _rag_eval([*command, "--strict"] if self.strict else command)
        if not done.stdout.strip():
            raise BuildError(f"the gate could not decide: {_last_line(done.stderr)}")
        return done.returncode == 0, " ".join(done.stdout.split())


def make_gate(
    folder: Path, progress: Progress, *, measure: str, margin: float, strict: bool
) -> EvalGate:
    """The gate of a folder that holds queries.jsonl and qrels/<split>.tsv (test.tsv if there are
    several), as BEIR lays them out. Raises ConfigurationError if they are not there.
    """
    queries = folder / QUERIES
    found = sorted((folder / QRELS).glob("*.tsv"))
    qrels = next((path for path in found if path.stem == "test"), found[0] if found else None)
    if not queries.is_file() or qrels is None:
        raise ConfigurationError(
            f"--gate {folder} does not hold {QUERIES} and {QRELS}/<split>.tsv; put the judged"
            " queries there"
        )
    return EvalGate(queries, qrels, progress, measure=measure, margin=margin, strict=strict)


def _rag_eval(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eval", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _keep(
    root: Root, version: str, results: Path, known: Pointer | None, *, passed: bool, verdict: str
) -> str:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    report = {
        "version": version,
        "baseline": None if known is None else known.version,
        "passed": passed,
        "verdict": verdict,
        "time": stamp,
        "results": {
            side.stem: json.loads(side.read_bytes()) for side in sorted(results.glob("*.json"))
        },
    }
    key = f"{GATES}/{version}/{stamp}-{time.time_ns() % 10**6:06d}.json"
    settle(root.store, key, canonical(report), expected=None)
    return f"{root.uri}/{key}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
