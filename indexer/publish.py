"""From a sealed folder to the version that a root serves: upload, gate, then `CURRENT`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from indexer.progress import Progress
from indexer.upload import upload
from rag.errors import BuildError, ConditionFailed
from rag.index.pointer import CURRENT, Pointer
from rag.index.root import Root
from rag.index.seal import read_manifest
from rag.storage import open_store

Gate = Callable[[Path, Root, Pointer | None], None]
"""Raises GateRefused if the sealed folder may not replace the current version of the root."""
PRUNE_ABANDONED_S = 900.0
"""A deletion that began so long ago, and was not renewed, has died."""


def publish(folder: Path, output: str, progress: Progress, gate: Gate | None = None) -> str:
    """Copies the sealed bundle in `folder` to the root `output` and makes it the current version.

    Returns the version id. A version that is already there whole is not written again; one that
    an interrupted run left half written is finished. With `gate`, the version is uploaded, and
    becomes current only if the gate lets it pass. Raises ConditionFailed if someone else
    published meanwhile: nothing of theirs is touched, and publishing again goes on from there.
    """
    manifest = read_manifest(folder)
    version = manifest.version
    root = Root(output)
    known = not_pruned(root, version, root.current())
    upload(folder, manifest, open_store(root.version_uri(version)), progress)
    root.require(version)
    if gate is not None and (known is None or known.version != version):
        gate(folder, root, known)
    point(root, version, known)
    return version


def rollback(output: str, version: str | None) -> tuple[str, str]:
    """Makes `version` current, or else the one before, if it is whole; returns (before, now).

    What is left for an earlier one counts as undone: going back again goes further back. Raises
    BuildError if there is none, BundleMissing if `version` is not whole, ConditionFailed if
    someone else published meanwhile.
    """
    root = Root(output)
    known = root.current()
    if known is None:
        raise BuildError(f"{root.uri} has no {CURRENT}: nothing was ever published there")
    earlier = [past.version for past in known.previous if not past.undone]
    if version is None:
        whole = {info.version for info in root.versions() if info.manifest is not None}
        earlier = [version for version in earlier if version in whole]
        if not earlier:
            raise BuildError(
                f"{root.uri}: no earlier version is left; name one with --to"
                " (rag-indexer versions lists them)"
            )
        version = earlier[0]
    root.require(version)
    point(root, version, not_pruned(root, version, known), undo=version in earlier)
    return known.version, version


def point(root: Root, version: str, known: Pointer | None, *, undo: bool = False) -> None:
    """Makes `version` current if the current version is still that of `known` (None: none).

    Changes of `CURRENT` that leave the version alone, as pruning makes them, do not count.
    """
    while known is None or known.version != version:
        try:
            root.point(version, known, undo=undo)
            return
        except ConditionFailed:
            now = root.current()
            if now is None or known is None or (now.version, now.since) != (
                known.version, known.since,
            ):  # fmt: skip
                if now is not None and now.version == version:
                    return  # the other publisher published the same
                raise ConditionFailed(
                    f"{root.uri}/{CURRENT} was changed by another publisher meanwhile; version"
                    f" {version} is uploaded but not current: run the command again to publish it"
                ) from None
            known = not_pruned(root, version, now)


def not_pruned(root: Root, version: str, known: Pointer | None) -> Pointer | None:
    """`known`, certain not to list `version` as being deleted.

    Raises BuildError while a prune is at it; one that died is struck off.
    """
    if known is None or not known.pruning or version not in known.pruning:
        return known
    if time.time() - known.pruning[version] < PRUNE_ABANDONED_S:
        raise BuildError(
            f"{root.uri}: version {version} is being pruned; run rag-indexer prune to finish"
            " that, then run the command again"
        )
    rest = {v: since for v, since in known.pruning.items() if v != version}
    return root.replace(replace(known, pruning=rest), known)
