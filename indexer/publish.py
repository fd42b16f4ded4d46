"""From a sealed folder to a root: `versions/<id>/…` create-only, the manifest last, then
`CURRENT` by a conditional write.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from indexer.progress import Progress
from rag.errors import BuildError, ConditionFailed, ObjectNotFound
from rag.index.manifest import NAME, Manifest
from rag.index.root import CURRENT, Pointer, Root
from rag.index.seal import read_manifest
from rag.storage import Store, open_store


def publish(folder: Path, output: str, progress: Progress) -> str:
    """Copies the sealed bundle in `folder` to the root `output` and makes it the current version.

    Returns the version id. A version that is already there whole is not written again; one that
    an interrupted run left half written is finished. Raises ConditionFailed if someone else
    published meanwhile: nothing of theirs is touched, and publishing again goes on from there.
    """
    manifest = read_manifest(folder)
    root = Root(output)
    known = root.current()
    upload(folder, manifest, root, progress)
    point(root, manifest.version, known)
    return manifest.version


def upload(folder: Path, manifest: Manifest, root: Root, progress: Progress) -> None:
    """Writes `versions/<id>/…` below `root`, the manifest last."""
    store = open_store(root.version_uri(manifest.version))
    try:
        store.read(NAME)
    except ObjectNotFound:
        pass
    else:
        progress.note("already published", version=manifest.version)
        return
    with progress.stage("publish", len(manifest.files)) as step:
        for name in sorted(manifest.files):
            _put(store, name, folder / name)
            step.advance()
    store.write(NAME, manifest.to_bytes(), expected=None)


def point(root: Root, version: str, known: Pointer | None) -> None:
    """Makes `version` current if `CURRENT` is still as `known` (None: absent)."""
    if known is not None and known.version == version:
        return
    try:
        root.point(version, known)
    except ConditionFailed:
        raise ConditionFailed(
            f"{root.uri}/{CURRENT} was changed by another publisher meanwhile; version {version}"
            " is uploaded but not current: run the command again to publish it"
        ) from None


def _put(store: Store, name: str, path: Path) -> None:
    """Create-only; what an interrupted upload of this version left is replaced if it differs."""
    try:
        store.write(name, path, expected=None)
    except ConditionFailed:
        data, etag = store.read(name)
        if hashlib.sha256(data).digest() == hashlib.sha256(path.read_bytes()).digest():
            return
        try:
            store.write(name, path, expected=etag)
        except ConditionFailed:
            raise BuildError(
                f"{store.uri}/{name} is being written by another run of the same build;"
                " let it finish, then run the command again"
            ) from None
