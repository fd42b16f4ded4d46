"""`rag-indexer versions | publish | rollback | prune | pin`: what lies at a root, and what is
current.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.errors import ConfigurationError

if TYPE_CHECKING:
    from indexer.progress import Progress
    from indexer.publish import Gate

VERSIONS_HELP = """List the versions at ROOT, latest first; '*' marks the current one.

Example:  rag-indexer versions s3://bucket/index
"""
PUBLISH_HELP = """Copy a sealed bundle to a root and make it the current version.

BUNDLE is a bundle's folder, or a root (its current version is taken), also on s3://. Files are
created, never replaced, the manifest comes last, then CURRENT is swapped if nobody else did
meanwhile. An interrupted run is finished by running it again.

Example:  rag-indexer publish ./bundle --output s3://bucket/index --gate ./judged
"""
ROLLBACK_HELP = """Make an earlier version of ROOT current again: the one before, or --to a version.

Example:  rag-indexer rollback s3://bucket/index
"""
PRUNE_HELP = """Remove old versions and the remains of interrupted runs from ROOT.

Never removed: the current version, pinned ones, those that were current or written to within
--grace, and the latest --keep of all.

Example:  rag-indexer prune s3://bucket/index --keep 3 --grace 24h --dry-run
"""
PIN_HELP = """Keep a version of ROOT from ever being pruned, until --remove.

Example:  rag-indexer pin s3://bucket/index 082a3e88f0bdadf3989c03e7b2d79546
"""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

RootUri = Annotated[str, typer.Argument(metavar="ROOT", help="Folder or s3:// prefix of a root.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]
GateFolder = Annotated[
    Path | None,
    typer.Option(
        "--gate",
        help="Folder with queries.jsonl and qrels/<split>.tsv: the version becomes current only"
        " if rag-eval gate lets it pass against the one in service.",
    ),
]
GateMeasure = Annotated[str, typer.Option(help="Measure that the gate compares.")]
GateMargin = Annotated[float, typer.Option(help="Loss that the gate accepts, in the measure.")]
GateStrict = Annotated[
    bool, typer.Option("--gate-strict", help="The gate also refuses if a loss is not ruled out.")
]


def versions(root: RootUri, as_json: Json = False) -> None:
    from indexer.retention import pins
    from rag.index.root import Root

    place = Root(root)
    pointer = place.current()
    pinned = pins(place)
    rows = []
    for info in sorted(place.versions(), key=lambda i: -i.modified):
        is_current = pointer is not None and info.version == pointer.version
        row: dict[str, Any] = {
            "version": info.version,
            "current": is_current,
            "pinned": info.version in pinned,
            "whole": info.manifest is not None,
            "written": _time(info.modified),
            "files": len(info.files),
            "bytes": info.size,
        }
        if info.manifest is None:
            row["problem"] = info.problem
        else:
            row["documents"] = info.manifest.counts["documents"]
            row["chunks"] = info.manifest.counts["chunks"]
        rows.append(row)
    if as_json:
        print(json.dumps({"root": place.uri, "versions": rows}, ensure_ascii=False))
        return
    if not rows:
        print(f"{place.uri} holds no version")
    for row in rows:
        print(_line(row))


def publish(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, or a root, also on s3://.")],
    output: Annotated[str, typer.Option(help="Folder or s3:// prefix to publish it at.")],
    gate: GateFolder = None,
    gate_measure: GateMeasure = "nDCG@10",
    gate_margin: GateMargin = 0.01,
    gate_strict: GateStrict = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    import tempfile

    from indexer.progress import make_progress
    from indexer.publish import publish as publish_folder
    from rag.index.fetching import fetch, locate
    from rag.storage import is_remote

    progress = make_progress(quiet=quiet)
    judge = gate_option(gate, progress, gate_measure, gate_margin, strict=gate_strict)
    with tempfile.TemporaryDirectory(prefix="rag-publish-") as work:
        folder = fetch(bundle, Path(work)) if is_remote(bundle) else locate(bundle)
        version = publish_folder(folder, output, progress, judge)
    _say({"version": version, "output": output}, f"{output}: version {version} is current", as_json)


def rollback(
    root: RootUri,
    to: Annotated[str | None, typer.Option(help="Version id (default: the one before).")] = None,
    as_json: Json = False,
) -> None:
    from indexer.publish import rollback as roll_back

    before, now = roll_back(root, to)
    text = f"{root}: version {now} is current, before it was {before}"
    _say({"version": now, "before": before}, text, as_json)


def prune(
    root: RootUri,
    keep: Annotated[int, typer.Option(help="Versions that stay, the current one included.")] = 3,
    grace: Annotated[
        str, typer.Option(help="Time that a version is safe after its last use: 90m, 24h, 7d.")
    ] = "24h",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    from indexer.progress import make_progress
    from indexer.retention import plan
    from indexer.retention import prune as remove
    from rag.index.root import Root

    seconds = _seconds(grace)
    place = Root(root)
    if dry_run:
        verdicts = plan(place, keep=keep, grace_s=seconds)
    else:
        verdicts = remove(place, make_progress(quiet=quiet), keep=keep, grace_s=seconds)
    if as_json:
        rows = [
            {"version": v.version, "bytes": v.size, "files": v.files, "kept_because": v.keep}
            for v in verdicts
        ]
        print(json.dumps({"root": place.uri, "dry_run": dry_run, "versions": rows}))
        return
    gone = "would be removed" if dry_run else "removed"
    for v in verdicts:
        print(f"{v.version}  {v.size:>15,} bytes  {f'kept: {v.keep}' if v.keep else gone}")
    freed = sum(v.size for v in verdicts if v.keep is None)
    print(f"{sum(v.keep is None for v in verdicts)} versions {gone}, {freed:,} bytes")


def pin(
    root: RootUri,
    version: Annotated[str, typer.Argument(help="Version id, as rag-indexer versions lists it.")],
    remove: Annotated[bool, typer.Option("--remove", help="Let it be pruned again.")] = False,
) -> None:
    from indexer import retention
    from rag.index.root import Root

    if remove:
        retention.unpin(Root(root), version)
    else:
        retention.pin(Root(root), version)
    print(f"{root}: version {version} is {'no longer ' if remove else ''}pinned")


def gate_option(
    folder: Path | None, progress: Progress, measure: str, margin: float, *, strict: bool
) -> Gate | None:
    """The gate that the options name, checked before any work is done."""
    if folder is None:
        return None
    from indexer.gate import make_gate

    return make_gate(folder, progress, measure=measure, margin=margin, strict=strict)


def _seconds(text: str) -> float:
    try:
        value = float(text[:-1]) * UNITS[text[-1]]
    except (KeyError, ValueError, IndexError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"--grace is {text!r}; use a number and s, m, h or d, such as 24h")
    return value


def _line(row: dict[str, Any]) -> str:
    mark = "*" if row["current"] else " "
    what = (
        f"{row['documents']:>8,} documents {row['chunks']:>9,} passages"
        if row["whole"]
        else f"not whole: {row['problem']}"
    )
    pinned = "  pinned" if row["pinned"] else ""
    return f"{mark} {row['version']}  {row['written']}  {row['bytes']:>15,} bytes  {what}{pinned}"


def _say(result: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(result) if as_json else text)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
