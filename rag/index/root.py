"""A root: `versions/<id>/…`, each a bundle whose manifest is written last, and `CURRENT`, which
names the one to serve.

`CURRENT` is the one object that is ever replaced, always by a conditional write, so that every
change of it has one order that all readers and writers see (rag/index/pointer.py has what it says).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby

from rag.errors import BundleCorrupt, BundleMissing, BundleTooNew, ObjectNotFound
from rag.index.fetching import remote_manifest
from rag.index.manifest import NAME, Manifest
from rag.index.pointer import CURRENT, VERSIONS, Past, Pointer, read_pointer
from rag.storage import ObjectInfo, Store, join, open_store
from rag.writes import settle

HISTORY = 50
"""How many earlier versions `CURRENT` remembers."""
_READERS = 8


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One folder below `versions/`. `manifest` is None while it is not whole, and `problem` then
    says why; `files`, `size` (bytes) and `modified` (seconds since the epoch, the newest file)
    are what lies there.
    """

    version: str
    files: Mapping[str, ObjectInfo]
    manifest: Manifest | None
    problem: str | None

    @property
    def size(self) -> int:
        return sum(info.size for info in self.files.values())

    @property
    def modified(self) -> float:
        return max(info.modified for info in self.files.values())


class Root:
    """The root at `uri`, a folder or an object store's prefix. Nothing is read until asked for."""

    def __init__(self, uri: str) -> None:
        self.store: Store = open_store(uri)
        self.uri = self.store.uri

    def current(self) -> Pointer | None:
        """What is current now, or None if nothing was ever published here."""
        try:
            data, etag = self.store.read(CURRENT)
        except ObjectNotFound:
            return None
        return read_pointer(data, etag, self.uri)

    def poll(self, known: Pointer) -> Pointer | None:
        """What is current now, or None if `CURRENT` is still the object that gave `known`.

        One small request. A new pointer may name the same version: compare `version`. Raises
        ObjectNotFound if there is no `CURRENT` any more.
        """
        found = self.store.read_unless(CURRENT, known.etag)
        return None if found is None else read_pointer(*found, self.uri)

    def point(self, version: str, known: Pointer | None, *, undo: bool = False) -> Pointer:
        """Makes `version` current if `CURRENT` is still as `known` (None: if there is none); with
        `undo`, the version before counts as undone.

        Raises ConditionFailed if someone else changed it meanwhile.
        """
        now = time.time()
        if known is None:
            return self.replace(Pointer(version, since=now), None)
        past = (
            Past(known.version, now, undo),
            *(p for p in known.previous if p.version != version),
        )
        return self.replace(
            replace(known, version=version, since=now, previous=past[:HISTORY]), known
        )

    def replace(self, wanted: Pointer, known: Pointer | None) -> Pointer:
        """Writes `wanted` over `known` as it is, under a new change mark, as `point` does."""
        wanted = replace(wanted, change=uuid.uuid4().hex)
        expected = None if known is None else known.etag
        return replace(
            wanted, etag=settle(self.store, CURRENT, wanted.to_bytes(), expected=expected)
        )

    def version_uri(self, version: str) -> str:
        return join(self.uri, VERSIONS, version)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a whole version; BundleMissing for one that is not here or not whole."""
        return remote_manifest(open_store(self.version_uri(version)))

    def versions(self) -> list[VersionInfo]:
        """Every version that has a file here, whole or not, ascending by id."""
        groups = groupby(self.store.list(VERSIONS), key=lambda info: info.key.split("/")[1])
        listed = [(version, _named(version, infos)) for version, infos in groups]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda pair: self._info(*pair), listed))

    def require(self, version: str) -> Manifest:
        """The manifest of a version whose files all lie there in the right size.

        Raises BundleMissing for a version that is not here or not whole.
        """
        files = _named(version, self.store.list(f"{VERSIONS}/{version}"))
        if not files:
            raise BundleMissing(
                f"{self.uri} has no version {version}; rag-indexer versions lists those it has"
            )
        info = self._info(version, files)
        if info.manifest is None:
            raise BundleMissing(f"{self.uri}: version {version} is not whole: {info.problem}")
        return info.manifest

    def _info(self, version: str, files: dict[str, ObjectInfo]) -> VersionInfo:
        if NAME not in files:
            return VersionInfo(version, files, None, f"it has no {NAME}")
        try:
            manifest = self.manifest(version)
        except (BundleMissing, BundleCorrupt, BundleTooNew) as error:
            return VersionInfo(version, files, None, str(error))
        missing = [
            n for n, e in manifest.files.items() if n not in files or files[n].size != e.size
        ]
        problem = f"{missing[0]} is missing or has another size" if missing else None
        return VersionInfo(version, files, None if missing else manifest, problem)


def _named(version: str, infos: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    """A version's objects by their name below its folder."""
    start = len(VERSIONS) + len(version) + 2
    return {info.key[start:]: info for info in infos}
