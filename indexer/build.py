"""One build: documents in, one sealed bundle out.

Objects are listed and compared with the version before; what is new is read, parsed, chunked,
analysed and embedded in one pipeline (indexer/pipeline/), into a spool on disk; then chunks, both
legs and the encoder are written in row order, and sealed. Only ids, digests and lengths are ever
held for the whole corpus.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from indexer.incremental.plan import Plan
from indexer.incremental.previous import Previous
from indexer.job import Job
from indexer.options import BuildOptions
from indexer.progress import Progress, Silent
from indexer.report import REPORT, BuildReport, Clock, Skipped, refuse_skipped, skipped
from indexer.setup import Setup
from indexer.source import Source
from indexer.stopping import Stop
from indexer.workspace import Workspace, clear_checkpoint
from rag.errors import BuildError
from rag.index.manifest import Manifest
from rag.index.seal import write_manifest

__all__ = [
    "REPORT", "BuildOptions", "BuildReport", "Skipped", "build", "clear_checkpoint", "plan_build",
]  # fmt: skip


def build(
    source: Source,
    folder: Path,
    options: BuildOptions,
    progress: Progress | None = None,
    *,
    previous: str | None = None,
    checkpoint: Path | None = None,
    stop: Stop | None = None,
    copy_unchanged: bool = True,
) -> BuildReport:
    """Builds and seals the bundle of `source` in the new or empty folder `folder`.

    A document that cannot be indexed is skipped and reported; with `options.strict` it raises
    BuildError after all documents were tried. Raises BuildError if nothing at all can be indexed,
    ConfigurationError for options that make no sense.

    `previous` is the URI of a bundle, or of a root whose current version counts: only what changed
    since is read, and only texts without a vector are embedded; the bundle is the one that a full
    build gives. Where nothing changed it is copied, or, without `copy_unchanged`, the report alone
    says so and `folder` stays empty.

    In the folder `checkpoint` the work of a build that ends early is kept, by a kill at any moment
    too, for the next call with the same arguments; call `clear_checkpoint` when the bundle is
    safe. Once `stop` is set, BuildStopped is raised within seconds.

    Documents are parsed in processes of their own, which import the program's main module: it
    needs the usual `if __name__ == "__main__":`.
    """
    progress, stop, clock = progress or Silent(), stop or Stop(), Clock()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BuildError(f"{folder} is not empty; name a new folder")
    setup = Setup(source, options)
    where = folder / ".work" if checkpoint is None else checkpoint
    with Workspace(where, setup, kept=checkpoint is not None) as work:
        before = None if previous is None else Previous.find(previous, work.scratch / "previous")
        plan = setup.plan(before, work.scratch / "plan.jsonl")
        clock.lap("list")
        if before is None or not setup.is_same(before, plan):
            job = Job(setup, folder, work, before, plan, progress, stop, clock)
            job.run()
            unchanged = None
        else:
            unchanged, left_out = before.manifest, skipped(before.failures())
            if options.strict:
                refuse_skipped(left_out, plan.total)
            if copy_unchanged:
                _copy(before.folder, folder, unchanged)
    if unchanged is None:
        return job.seal()
    if copy_unchanged:
        write_manifest(folder, unchanged)
    clock.lap("copy")
    return _same(unchanged, left_out, folder, plan, source, clock)


def plan_build(
    source: Source, options: BuildOptions, previous: str | None, work: Path
) -> tuple[Plan, float | None]:
    """What `build` would find, and the seconds that it would take, by those that the build of
    `previous` took; None if that is not known. `work` is a folder for temporary files.
    """
    setup = Setup(source, options)
    before = None if previous is None else Previous.find(previous, work / "previous")
    plan = setup.plan(before, work / "plan.jsonl")
    return plan, setup.estimate(before, plan)


def _copy(source: Path, target: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _same(
    manifest: Manifest,
    left_out: tuple[Skipped, ...],
    folder: Path,
    plan: Plan,
    source: Source,
    clock: Clock,
) -> BuildReport:
    return BuildReport(
        version=manifest.version,
        folder=folder,
        documents=manifest.counts["documents"],
        chunks=manifest.counts["chunks"],
        skipped=left_out,
        passed_over=dict(source.passed_over),
        bytes=sum(entry.size for entry in manifest.files.values()),
        seconds=clock.seconds,
        changes={str(change): n for change, n in plan.counts.items()},
        unchanged=True,
    )
