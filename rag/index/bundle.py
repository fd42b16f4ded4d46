"""One sealed generation: opened, verified and searched as an `Index`.

A bundle is a folder with a manifest. Opening a *root* (rag/index/root.py) opens its current one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rag.errors import BundleCorrupt, BundleMissing, BundleMixed
from rag.index.analyzer import Analyzer, analyzer_from_reference
from rag.index.chunks import ChunkStore
from rag.index.dense import DenseLeg
from rag.index.fetching import fetch, locate
from rag.index.legs import Legs
from rag.index.manifest import Manifest, packed_digest
from rag.index.seal import Progress, read_manifest, verify_files
from rag.index.sparse import SparseLeg
from rag.storage import is_remote
from rag.types import Chunk, Int64, RowMask

ENCODER = "encoder"


class Bundle(Legs):
    """A bundle on this machine's disk, memory-mapped; an `Index` with `Evidence` (see
    rag/index/protocol.py).

    `folder` is where its files lie, `encoder_folder` the query encoder's.
    """

    def __init__(self, folder: Path, manifest: Manifest, analyzer: Analyzer) -> None:
        self.folder = folder
        self.encoder_folder = folder / ENCODER
        self._store = ChunkStore.open(folder)
        dense = DenseLeg.open(folder, manifest.dense, manifest.measured.get("dense"))
        sparse = SparseLeg.open(folder, manifest.sparse)
        super().__init__(manifest, dense, sparse, analyzer)
        rows = {"chunks": self._store.rows, "dense": dense.rows, "sparse": sparse.rows}
        if len({manifest.counts["chunks"], *rows.values()}) != 1:
            raise BundleMixed(
                f"{folder}: the parts disagree about the number of passages (manifest"
                f" {manifest.counts['chunks']}, {rows}); build the bundle again"
            )

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True, progress: Progress | None = None) -> Bundle:
        """Opens the bundle in `folder`.

        With `verify`, every byte is compared with the manifest's checksums, and the chunk ids
        with its digest; without, only names and sizes. Raises BundleError subclasses, each naming
        the file and the reason.
        """
        manifest = read_manifest(folder)
        with ThreadPoolExecutor(1) as beside:
            # A Korean one takes a second to load, while the files are read.
            analyzer = beside.submit(analyzer_from_reference, manifest.analyzer)
            verify_files(folder, manifest, digests=verify, progress=progress)
        bundle = cls(folder, manifest, analyzer.result())
        if verify and packed_digest(bundle._store.packed_ids()) != manifest.chunks_digest:
            raise BundleMixed(
                f"{folder / 'chunks.arrow'} holds other passages than the manifest says;"
                " it belongs to another version"
            )
        return bundle

    @property
    def store(self) -> ChunkStore:
        """The text and metadata, for callers that walk over them."""
        return self._store

    def select(self, where: Mapping[str, Any]) -> RowMask:
        return self._store.select(where)

    def chunks(self, rows: Int64) -> list[Chunk]:
        return self._store.chunks(rows)


def open_bundle(
    uri: str,
    *,
    version: str | None = None,
    cache_dir: Path | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Bundle:
    """Opens the bundle that `uri` names: a bundle's folder, a root, or either on an object store.
    Of a root it is `version`, or else the current one.

    Remote bundles are copied into `cache_dir` (needed for them) under their version id; a copy
    that is already there and whole is used. Raises BundleError, StorageError.
    """
    if not is_remote(uri):
        return Bundle.open(locate(uri, version), verify=verify, progress=progress)
    if cache_dir is None:
        raise BundleMissing(f"{uri} is remote; name a cache folder to copy it into")
    folder = fetch(uri, cache_dir, version)
    try:
        return Bundle.open(folder, verify=verify, progress=progress)
    except (BundleCorrupt, BundleMissing):
        # The local copy may have gone bad since it was made; the store's is asked once more.
        shutil.rmtree(folder)
        return Bundle.open(fetch(uri, cache_dir, version), verify=verify, progress=progress)
