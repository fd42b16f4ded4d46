"""Sealing and verifying a bundle's bytes: every file hashed, the manifest written last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rag.errors import BundleCorrupt, BundleMissing
from rag.index.manifest import NAME, FileEntry, Manifest, parse

Progress = Callable[[str, int], None]
"""Called with a file's path below the bundle and its size, after each file."""


def inventory(folder: Path) -> dict[str, FileEntry]:
    """Every file below `folder` but the manifest, hashed and synced to disk.

    Raises BundleCorrupt for a symbolic link: archives of bundles must not contain any.
    """
    files = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleCorrupt(f"{name} is a symbolic link; a bundle holds plain files only")
        if name != NAME:
            _sync(path)
            files[name] = FileEntry(path.stat().st_size, sha256_of(path))
    return files


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest so that it is there whole or not at all, after everything it names."""
    for path in {p.parent for p in _files(folder)}:
        _sync(path)
    temporary = folder / f".{NAME}.tmp"
    temporary.write_bytes(manifest.to_bytes())
    _sync(temporary)
    temporary.replace(folder / NAME)
    _sync(folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`; BundleMissing if there is none."""
    path = folder / NAME
    if not path.is_file():
        raise BundleMissing(f"{path} is not there: {folder} holds no sealed bundle")
    return parse(path.read_bytes(), str(path))


def verify_files(
    folder: Path, manifest: Manifest, *, digests: bool = True, progress: Progress | None = None
) -> None:
    """Compares every file with the manifest: presence, kind, size and (with `digests`) SHA-256.

    Raises BundleMissing or BundleCorrupt naming the first bad file in path order.
    """
    names = sorted(manifest.files)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        problems = pool.map(lambda n: _problem(folder, n, manifest.files[n], digests), names)
        for name, problem in zip(names, problems, strict=True):
            if problem is not None:
                raise problem
            if progress is not None:
                progress(name, manifest.files[name].size)


def file_problems(folder: Path, manifest: Manifest) -> dict[str, str]:
    """What is wrong with each file that is not what the manifest says, by name, ascending."""
    found = ((n, _problem(folder, n, manifest.files[n], True)) for n in sorted(manifest.files))
    return {name: str(problem) for name, problem in found if problem is not None}


def _problem(folder: Path, name: str, entry: FileEntry, digests: bool) -> Exception | None:
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        return BundleCorrupt(f"{folder / NAME} names '{name}', which lies outside the bundle")
    if path.is_symlink():
        return BundleCorrupt(f"{path} is a symbolic link; a bundle holds plain files only")
    if not path.is_file():
        return BundleMissing(
            f"{path} is not there, but the manifest names it; copy the whole bundle"
        )
    size = path.stat().st_size
    if size < entry.size:
        return BundleCorrupt(
            f"{path} is truncated: {size} of {entry.size} bytes; copy the bundle again"
        )
    if size > entry.size or (digests and sha256_of(path) != entry.sha256):
        return BundleCorrupt(
            f"{path} was altered or belongs to another version: its bytes are not those that the"
            " manifest names; copy or build the bundle again"
        )
    return None


def _files(folder: Path) -> Iterator[Path]:
    for parent, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            yield Path(parent, name)


def sha256_of(path: Path) -> str:
    """The file's SHA-256, 64 hex digits, without holding it in memory."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
