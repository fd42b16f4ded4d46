"""One pass over a bundle or a root: what is wrong, and with `repair` the mending of it."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.audit.checks import CHUNKS, DENSE, MANIFEST, Finding, check_bundle
from indexer.audit.database import DATABASE, Reconciled, check_database
from indexer.audit.passage_rows import PassageRows
from indexer.audit.repair import copy_here, healthy_store, mend, put_back
from indexer.external.table import Opener, Table
from indexer.progress import Progress
from indexer.retention import CLAIM_GRACE_S, pins, plan, prune
from rag.errors import BundleError
from rag.index.fetching import bundle_store, remote_manifest
from rag.index.manifest import NAME, Manifest
from rag.index.root import Root
from rag.storage import Store
from rag.writes import settle

ROOT = "root"
_ALL = 10**9


def run_fsck(
    uri: str,
    version: str | None,
    *,
    repair: bool,
    healthy: str | None,
    sample: int,
    progress: Progress,
    database: Opener | None = None,
) -> dict[str, Any]:
    """Checks, and mends with `repair`: version, findings, what was repaired, and whether all is
    whole now; `database`, where there is one, is compared with the bundle, and with `repair` made
    to hold what that holds. Raises BuildError for damage that cannot be mended, BundleMissing for
    no bundle, DatabaseError where the database cannot be reached or refuses.
    """
    root = Root(uri)
    is_root = root.current() is not None
    findings = _check_root(root) if is_root else []
    store = bundle_store(uri, version)
    repaired = []
    try:
        manifest = remote_manifest(store)
    except BundleError as error:
        if not (repair and healthy and (version or is_root)):
            raise
        findings.append(Finding(MANIFEST, NAME, str(error)))
        manifest = remote_manifest(healthy_store(healthy, version or _current(root)))
        _restore_manifest(store, manifest.to_bytes())
        repaired.append(NAME)
    with ExitStack() as stack:
        table = None
        if database is not None:
            table = stack.enter_context(closing(database(int(manifest.dense["dimension"]))))
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="rag-fsck-"))
        folder = Path(work, manifest.version)
        copy_here(store, manifest, folder)
        progress.note("checking", version=manifest.version)
        damage = check_bundle(folder, manifest, sample=sample)
        if damage and repair:
            source = healthy_store(healthy, manifest.version) if healthy else None
            sealed = mend(folder, manifest, damage, source, progress)
            repaired += put_back(store, folder, manifest, sealed)
            left = check_bundle(folder, sealed, sample=sample)
        else:
            left = damage
        outcome = None
        if table is not None:
            outcome = _database(folder, manifest, table, left, sample, repair, progress)
            damage, left = damage + outcome.findings, left + outcome.left
            repaired += outcome.repaired
    if is_root and repair:
        gone = prune(root, progress, keep=_ALL, grace_s=CLAIM_GRACE_S)
        repaired += [f"{v.version} (remains of an interrupted run)" for v in gone if not v.keep]
        left = left + _check_root(root)
    elif is_root:
        left = left + findings
    return {
        "uri": uri,
        "version": manifest.version,
        "findings": [asdict(finding) for finding in [*findings, *damage]],
        "repaired": repaired,
        "database": outcome and outcome.summary,
        "whole": not left,
    }


def _database(
    folder: Path,
    manifest: Manifest,
    table: Table,
    left: list[Finding],
    sample: int,
    repair: bool,
    progress: Progress,
) -> Reconciled:
    """The database against a bundle of which `left` is wrong: not at all if that is in what the
    rows are made of.
    """
    if {finding.part for finding in left} & {MANIFEST, CHUNKS, DENSE}:
        skipped = [Finding(DATABASE, "", "not compared: mend the bundle's own rows first")]
        return Reconciled(skipped, skipped, {"name": table.name, "rows": None})
    passages = PassageRows.open(folder, manifest)
    return check_database(passages, table, sample=sample, repair=repair, progress=progress)


def _check_root(root: Root) -> list[Finding]:
    """What is wrong with a root beside the versions that are whole."""
    pointer = root.current()
    infos = {info.version: info for info in root.versions()}
    found = []
    if pointer is not None and pointer.version not in infos:
        found.append(Finding(ROOT, "CURRENT", f"it names {pointer.version}, which is not here"))
    for verdict in plan(root, keep=_ALL, grace_s=CLAIM_GRACE_S):
        if verdict.keep is None:
            problem = infos[verdict.version].problem or "its removal was interrupted"
            found.append(Finding(ROOT, f"versions/{verdict.version}", problem))
    found += [
        Finding(ROOT, f"pins/{version}", "it pins a version that is not here")
        for version in sorted(pins(root) - infos.keys())
    ]
    return found


def _current(root: Root) -> str:
    pointer = root.current()
    return "" if pointer is None else pointer.version


def _restore_manifest(store: Store, data: bytes) -> None:
    there = [info for info in store.list() if info.key == NAME]
    etag = store.read(NAME)[1] if there else None
    settle(store, NAME, data, expected=etag)
