"""A root: `versions/<id>/…`, each a bundle whose manifest is written last, and `CURRENT`, which
names the one to serve.

`CURRENT` is the one object that is ever replaced, always by a conditional write, so that every
change of it has one order that all readers and writers see. It is canonical JSON: `version`, the
id in service; `since`, when it became that; `change`, a random mark of that write; `previous`,
the versions before it, latest first; `pruning`, versions that are being deleted and must not be
made current. Only `version` is needed.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from shutil import rmtree

from rag.errors import BundleCorrupt, BundleMissing, BundleTooNew, ObjectNotFound
from rag.index.manifest import NAME, Manifest, canonical, parse
from rag.storage import ObjectInfo, Store, join, open_store
from rag.writes import settle

CURRENT = "CURRENT"
VERSIONS = "versions"
HISTORY = 50
"""How many earlier versions `CURRENT` remembers."""
_READERS = 8


@dataclass(frozen=True, slots=True)
class Past:
    """A version that was current until `until`, seconds since the epoch; `undone` if it was left
    for an earlier one.
    """

    version: str
    until: float
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `CURRENT` says, and the ETag of the object that says it.

    `since` is seconds since the epoch (0: not told); `previous` begins with the latest;
    `pruning` maps a version to the time its deletion began.
    """

    version: str
    etag: str = ""
    since: float = 0.0
    change: str = ""
    previous: tuple[Past, ...] = ()
    pruning: Mapping[str, float] | None = None

    def to_bytes(self) -> bytes:
        return canonical(
            {
                "version": self.version,
                "since": self.since,
                "change": self.change,
                "previous": [asdict(past) for past in self.previous],
                "pruning": dict(self.pruning or {}),
            }
        )


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
        return _pointer(data, etag, self.uri)

    def poll(self, known: Pointer) -> Pointer | None:
        """What is current now, or None if `CURRENT` is still the object that gave `known`.

        One small request. A new pointer may name the same version: compare `version`. Raises
        ObjectNotFound if there is no `CURRENT` any more.
        """
        found = self.store.read_unless(CURRENT, known.etag)
        return None if found is None else _pointer(*found, self.uri)

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


def current_version(pointer: bytes, where: str) -> str:
    """The version id that a root's `CURRENT` names; BundleCorrupt if it names none."""
    return _pointer(pointer, "", where).version


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


def _pointer(data: bytes, etag: str, where: str) -> Pointer:
    try:
        raw = json.loads(data)
        version = raw["version"]
        if not isinstance(version, str) or not version.isalnum():
            raise TypeError("no version")
        previous = tuple(
            Past(str(p["version"]), float(p["until"]), bool(p.get("undone")))
            for p in raw.get("previous", ())
        )
        pruning = {str(v): float(since) for v, since in raw.get("pruning", {}).items()}
        since, change = float(raw.get("since", 0.0)), str(raw.get("change", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleCorrupt(f"{where}/{CURRENT} does not name a version; publish again") from None
    return Pointer(version, etag, since, change, previous, pruning)


def _named(version: str, infos: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    """A version's objects by their name below its folder."""
    start = len(VERSIONS) + len(version) + 2
    return {info.key[start:]: info for info in infos}
