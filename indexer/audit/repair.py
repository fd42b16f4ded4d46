"""A damaged bundle made whole again, from a healthy copy or from what it still holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexer.audit.checks import DENSE, SPARSE, Finding, part_of
from indexer.incremental.state import FOLDER as STATE
from indexer.progress import Progress
from indexer.report import REPORT
from rag.errors import BuildError, ObjectNotFound
from rag.index.analyzer import analyzer_from_reference
from rag.index.bundle import ENCODER, Bundle
from rag.index.chunks import ChunkStore
from rag.index.dense.build import write_dense
from rag.index.dense.spec import resolve
from rag.index.fetching import bundle_store, remote_manifest
from rag.index.manifest import NAME, Manifest, canonical
from rag.index.seal import inventory, sha256_of, write_manifest
from rag.index.sparse import build_sparse
from rag.models.load import load_embedder
from rag.storage import Store, is_remote
from rag.writes import settle

_BLOCK = 512


def copy_here(store: Store, manifest: Manifest, folder: Path) -> None:
    """Every file of the manifest that is there, into the new folder `folder`, and the manifest."""
    for name in sorted(manifest.files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(name, path)
        except ObjectNotFound:
            path.unlink(missing_ok=True)
    (folder / NAME).write_bytes(manifest.to_bytes())


def mend(
    folder: Path,
    manifest: Manifest,
    findings: Iterable[Finding],
    healthy: Store | None,
    progress: Progress,
) -> Manifest:
    """Makes the copy in `folder` whole and seals it anew; returns its manifest.

    Files come from `healthy`, where another copy of the same version has them. Else the sparse
    leg is built again from the passages, byte for byte as it was, and the dense leg by embedding
    them with the bundle's encoder: the version stays, the manifest gets the new checksums. A lost
    state is left out, so that the next build reads everything. Raises BuildError for what neither
    brings back: passages, documents, the encoder.
    """
    broken = {finding.part for finding in findings}
    if healthy is not None:
        broken = _fetch_healthy(folder, manifest, broken, healthy, progress)
    lost = broken - {SPARSE, DENSE, REPORT, STATE}
    if lost:
        raise BuildError(
            f"{', '.join(sorted(lost))} cannot be made again from what is left; name a healthy"
            f" copy of version {manifest.version} with --from, or build it again"
        )
    makers: dict[str, Callable[[], None]] = {
        SPARSE: lambda: _sparse(folder, manifest, progress),
        DENSE: lambda: _dense(folder, manifest, progress),
        REPORT: lambda: _report(folder, manifest),
        STATE: lambda: shutil.rmtree(folder / STATE, ignore_errors=True),
    }
    for part in sorted(broken):
        makers[part]()
    (folder / NAME).unlink(missing_ok=True)
    sealed = replace(manifest, files=inventory(folder))
    write_manifest(folder, sealed)
    Bundle.open(folder)
    return sealed


def put_back(store: Store, folder: Path, before: Manifest, after: Manifest) -> list[str]:
    """Replaces in `store` what is not as in `folder`, the manifest last; returns the names.

    Every write is conditional on the object that is replaced; running it again finishes it.
    """
    changed = []
    there = {info.key: info for info in store.list()}
    for name, entry in sorted(after.files.items()):
        if name not in there:
            store.write(name, folder / name, expected=None)
        else:
            with tempfile.TemporaryDirectory(prefix="rag-fsck-") as work:
                copy = Path(work, "copy")
                store.download(name, copy)
                found = sha256_of(copy)
            if found == entry.sha256:
                continue
            etag = there[name].etag if is_remote(store.uri) else found
            store.write(name, folder / name, expected=etag)
        changed.append(name)
    if before.to_bytes() != after.to_bytes():
        _, etag = store.read(NAME)
        settle(store, NAME, after.to_bytes(), expected=etag)
        changed.append(NAME)
    return changed


def healthy_store(uri: str, version: str) -> Store:
    """The place of `version` at `uri`, a bundle or a root; BuildError if it holds another."""
    store = bundle_store(uri, version)
    found = remote_manifest(store).version
    if found != version:
        raise BuildError(f"{uri} holds version {found}, not {version}; name a copy of that one")
    return store


def _fetch_healthy(
    folder: Path, manifest: Manifest, broken: set[str], healthy: Store, progress: Progress
) -> set[str]:
    """Takes the broken parts' files from the healthy copy, where they are what the manifest says;
    returns the parts that are still broken.
    """
    left = set()
    names = [name for name in sorted(manifest.files) if part_of(name) in broken]
    with progress.stage("copy healthy files", len(names)) as step:
        for name in names:
            path = folder / name
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                healthy.download(name, path)
            except ObjectNotFound:
                left.add(part_of(name))
            else:
                if sha256_of(path) != manifest.files[name].sha256:
                    left.add(part_of(name))
            step.advance()
    return left | {part for part in broken if not any(part_of(n) == part for n in names)}


def _sparse(folder: Path, manifest: Manifest, progress: Progress) -> None:
    store = ChunkStore.open(folder)
    analyzer = analyzer_from_reference(manifest.analyzer)
    shutil.rmtree(folder / SPARSE, ignore_errors=True)
    options = {n: manifest.sparse[n] for n in ("engine", "method", "k1", "b", "delta")}

    def terms() -> Iterator[Sequence[str]]:
        with progress.stage("analyse again", store.rows) as step:
            for start in range(0, store.rows, _BLOCK):
                texts = store.indexed_texts(start, start + _BLOCK)
                yield from analyzer.batch(texts)
                step.advance(len(texts))

    build_sparse(folder, terms(), weight=analyzer.weight, **options)


def _dense(folder: Path, manifest: Manifest, progress: Progress) -> None:
    store = ChunkStore.open(folder)
    embedder = load_embedder(folder / ENCODER)
    shutil.rmtree(folder / DENSE, ignore_errors=True)
    shape = (store.rows, embedder.config.dimension)
    spec = resolve(manifest.dense, manifest.measured.get("dense", {}), str(folder / DENSE))
    with tempfile.TemporaryDirectory(prefix="rag-fsck-") as work:
        vectors = np.memmap(Path(work, "vectors"), dtype=np.float32, mode="w+", shape=shape)
        with progress.stage("embed again", store.rows) as step:
            for start in range(0, store.rows, _BLOCK):
                texts = store.indexed_texts(start, start + _BLOCK)
                vectors[start : start + len(texts)] = embedder.embed_passages(texts)
                step.advance(len(texts))
        write_dense(folder, vectors, spec)


def _report(folder: Path, manifest: Manifest) -> None:
    """The reasons of skipped documents are lost; their number is in the manifest."""
    lost = {"skipped": [], "lost": manifest.counts["skipped"]}
    (folder / REPORT).write_bytes(canonical(lost))
