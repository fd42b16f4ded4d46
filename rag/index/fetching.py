"""From an address to the bundle there: its folder, its store, or a copy of it on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import rmtree

from rag.errors import BundleCorrupt, BundleMissing, ObjectNotFound
from rag.index.manifest import NAME, Manifest, parse
from rag.index.pointer import CURRENT, VERSIONS, current_version
from rag.storage import Store, join, open_store


def remote_manifest(store: Store) -> Manifest:
    """The manifest at the top of `store`; BundleMissing if there is none."""
    try:
        data, _ = store.read(NAME)
    except ObjectNotFound:
        raise BundleMissing(
            f"{store.uri} holds neither {CURRENT} nor {NAME}; build a bundle there first"
        ) from None
    return parse(data, f"{store.uri}/{NAME}")


def locate(uri: str, version: str | None = None) -> Path:
    """The bundle's folder for a local folder that is a bundle or a root; of a root, `version` or
    else the current one.
    """
    folder = Path(open_store(uri).uri)
    if version is not None:
        return folder / VERSIONS / version
    if (folder / NAME).is_file() or not (folder / CURRENT).is_file():
        if not folder.is_dir():
            raise BundleMissing(f"{folder} is not there; build a bundle with rag-indexer build")
        return folder
    return folder / VERSIONS / current_version((folder / CURRENT).read_bytes(), str(folder))


def bundle_store(uri: str, version: str | None = None) -> Store:
    """Where the files of a bundle lie: at `uri`, or, of a root, its `version` or else its current
    one.
    """
    store = open_store(uri)
    try:
        current = current_version(store.read(CURRENT)[0], uri)
    except ObjectNotFound:
        return store  # a bundle itself, or nothing, which its reader finds out
    return open_store(join(uri, VERSIONS, version or current))


def fetch(uri: str, cache_dir: Path, version: str | None = None) -> Path:
    """Copies the remote bundle at `uri` (a bundle, or a root's `version` or else its current one)
    below `cache_dir`; returns its folder.

    The copy appears under its version id only when it is complete; of one that fails nothing is
    left.
    """
    store = bundle_store(uri, version)
    manifest = remote_manifest(store)
    target = cache_dir / manifest.version
    if (target / NAME).is_file():
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{manifest.version}.", dir=cache_dir))
    try:
        _download(store, manifest, partial)
        partial.rename(target)
    except OSError:
        if not (target / NAME).is_file():  # another process may have finished the same copy first
            raise
    finally:
        rmtree(partial, ignore_errors=True)
    return target


def _download(store: Store, manifest: Manifest, folder: Path) -> None:
    for name in sorted(manifest.files):
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BundleCorrupt(f"{store.uri}/{NAME} names '{name}', outside the bundle")
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download(name, path)
    (folder / NAME).write_bytes(manifest.to_bytes())
