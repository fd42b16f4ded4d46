"""What `rag-indexer build` prints."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

SHOWN = 20
"""Names of each kind of change that a dry run prints."""


def print_build(report: Any, output: str, *, as_json: bool) -> None:
    skipped = [{"doc_id": s.doc_id, "reason": s.reason} for s in report.skipped]
    if as_json:
        result = {
            "version": report.version,
            "output": output,
            "documents": report.documents,
            "chunks": report.chunks,
            "skipped": skipped,
            "passed_over": report.passed_over,
            "bytes": report.bytes,
            "seconds": report.seconds,
            "changes": report.changes,
            "embedded": report.embedded,
            "unchanged": report.unchanged,
        }
        print(json.dumps(result, ensure_ascii=False))
        return
    total = sum(report.seconds.values())
    console = Console(highlight=False, soft_wrap=True)
    if report.unchanged:
        done = f"nothing changed, version [bold]{report.version}[/] stays"
    else:
        done = f"version [bold]{report.version}[/]"
    console.print(
        f"{output}: {done}, {report.documents} documents in {report.chunks} passages, {total:.1f} s"
    )
    if report.passed_over:
        counts = ", ".join(f"{count} {why}" for why, count in sorted(report.passed_over.items()))
        console.print(f"Files that are no documents: {counts}")
    if skipped:
        many = "document is" if len(skipped) == 1 else "documents are"
        console.print(f"{len(skipped)} {many} not in it:")
        for line in skipped:
            console.print(f"  {line['doc_id']}: {line['reason']}", markup=False)


def print_plan(source: Any, options: Any, previous: str | None, *, as_json: bool) -> None:
    from indexer.build import plan_build

    with tempfile.TemporaryDirectory(prefix="rag-plan-") as work:
        plan, seconds = plan_build(source, options, previous, Path(work))
    if as_json:
        result = {
            "changes": {str(change): n for change, n in plan.counts.items()},
            "names": {str(change): names for change, names in plan.names.items()},
            "passed_over": dict(source.passed_over),
            "estimated_s": seconds,
        }
        print(json.dumps(result, ensure_ascii=False))
        return
    print(", ".join(f"{n} {change}" for change, n in plan.counts.items()))
    for change, names in plan.names.items():
        for name in names[:SHOWN] if change != "unchanged" else ():
            print(f"  {change}: {name}")
        if change != "unchanged" and plan.counts[change] > SHOWN:
            print(f"  {change}: and {plan.counts[change] - SHOWN} more")
    took = (
        "unknown: no build of so many was measured yet" if seconds is None else f"{seconds:.0f} s"
    )
    print(f"Estimated time: {took}")
