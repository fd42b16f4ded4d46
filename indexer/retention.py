"""Which versions of a root may go, and their removal in an order that no reader notices."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from indexer.progress import Progress
from rag.errors import BuildError, ConditionFailed
from rag.index.manifest import NAME, canonical
from rag.index.pointer import CURRENT, VERSIONS, Pointer
from rag.index.root import Root, VersionInfo
from rag.writes import settle

PINS = "pins"
CLAIM_GRACE_S = 3600.0
"""A version that is not whole is left alone for so long after its last write: a publisher that is
at work renews its claim every few seconds."""
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """What pruning does to one version: `keep` says why it stays, None if it goes."""

    version: str
    size: int
    files: int
    keep: str | None


def plan(root: Root, *, keep: int, grace_s: float) -> list[Verdict]:
    """The fate of every version at `root`, ascending by id.

    Stays: the current one; a pinned one; one that was current, or was written to, less than
    `grace_s` ago (one that is not whole: at least CLAIM_GRACE_S); and the latest, until `keep`
    whole ones stay.
    """
    return _plan(root, root.current(), keep, grace_s)


def prune(root: Root, progress: Progress, *, keep: int, grace_s: float) -> list[Verdict]:
    """Removes what `plan` says; returns the verdicts.

    What goes is first named in `CURRENT`, so that nobody can make it current from then on; then
    its manifest goes, then its files. An interrupted prune is finished by the next one. Raises
    ConditionFailed if someone else changes `CURRENT` meanwhile: nothing was removed.
    """
    pointer = root.current()
    if pointer is None:
        raise BuildError(f"{root.uri} has no {CURRENT}: nothing was ever published there")
    verdicts = _plan(root, pointer, keep, grace_s)
    going = [v.version for v in verdicts if v.keep is None]
    if not going and not pointer.pruning:
        return verdicts
    _mark(root, pointer, going)
    pinned = pins(root)  # once more: a pin set before the mark holds, one set after is refused
    removed = [version for version in going if version not in pinned]
    with progress.stage("prune", len(removed)) as step:
        for version in removed:
            _remove(root, version, going)
            step.advance()
    _remark(root, going, None)
    return [replace(v, keep="pinned") if v.version in pinned else v for v in verdicts]


def pin(root: Root, version: str) -> None:
    """Keeps `version` from being pruned. Raises BundleMissing, or BuildError if it is going."""
    root.require(version)
    key = f"{PINS}/{version}"
    if version not in pins(root):
        settle(root.store, key, canonical({"version": version}), expected=None)
    pointer = root.current()
    if pointer is not None and version in (pointer.pruning or {}):
        root.store.delete([key])
        raise BuildError(f"{root.uri}: version {version} is being pruned; it cannot be pinned")


def unpin(root: Root, version: str) -> None:
    """Lets `version` be pruned again; no error if it is not pinned."""
    root.store.delete([f"{PINS}/{version}"])


def pins(root: Root) -> set[str]:
    """The versions that are pinned."""
    return {info.key.split("/")[-1] for info in root.store.list(PINS)}


def _plan(root: Root, pointer: Pointer | None, keep: int, grace_s: float) -> list[Verdict]:
    if keep < 1:
        raise BuildError(f"--keep is {keep}; the current version always stays: use 1 or more")
    now = time.time()
    infos = root.versions()
    pinned = pins(root)
    until = {p.version: p.until for p in pointer.previous} if pointer else {}
    last = {i.version: max(i.modified, until.get(i.version, 0.0)) for i in infos}
    reasons: dict[str, str | None] = {}
    for info in infos:
        grace = grace_s if info.manifest is not None else max(grace_s, CLAIM_GRACE_S)
        reasons[info.version] = None
        if pointer is not None and info.version == pointer.version:
            reasons[info.version] = "current"
        elif info.version in pinned:
            reasons[info.version] = "pinned"
        elif pointer is not None and info.version in (pointer.pruning or {}):
            continue
        elif now - last[info.version] < grace:
            reasons[info.version] = "young" if info.manifest is not None else "unfinished"
    whole = [i for i in infos if i.manifest is not None]
    room = keep - sum(reasons[i.version] is not None for i in whole)
    going = (pointer.pruning if pointer else None) or {}
    for info in sorted(whole, key=lambda i: -last[i.version]):
        if room > 0 and reasons[info.version] is None and info.version not in going:
            reasons[info.version] = "recent"
            room -= 1
    return [_verdict(info, reasons[info.version]) for info in infos]


def _verdict(info: VersionInfo, keep: str | None) -> Verdict:
    return Verdict(info.version, info.size, len(info.files), keep)


def _mark(root: Root, pointer: Pointer, versions: Iterable[str]) -> None:
    """Writes into `CURRENT` that `versions`, and no others, are being removed."""
    marked = dict.fromkeys(versions, time.time())
    try:
        root.replace(replace(pointer, pruning=marked), pointer)
    except ConditionFailed:
        raise ConditionFailed(
            f"{root.uri}/{CURRENT} was changed by someone else meanwhile; nothing was removed, run"
            " the command again"
        ) from None


def _remark(root: Root, versions: Iterable[str], at: float | None) -> None:
    """Renews the marks of `versions`, or takes them away; others may publish meanwhile."""
    while True:
        pointer = root.current()
        pruning = dict((pointer.pruning if pointer else None) or {})
        if pointer is None or any(version not in pruning for version in versions):
            raise ConditionFailed(
                f"{root.uri}: this prune took so long that a publisher struck it off; run it again"
            )
        rest = {v: since for v, since in pruning.items() if v not in versions}
        kept = {} if at is None else dict.fromkeys(versions, at)
        try:
            root.replace(replace(pointer, pruning={**rest, **kept}), pointer)
        except ConditionFailed:
            continue
        return


def _remove(root: Root, version: str, going: list[str]) -> None:
    """Deletes one version, the manifest first; the marks are renewed, so that none looks dead."""
    folder = f"{VERSIONS}/{version}"
    _remark(root, going, time.time())
    root.store.delete([f"{folder}/{NAME}"])
    keys = [info.key for info in root.store.list(folder)]
    for start in range(0, len(keys), _BATCH):
        if start:
            _remark(root, going, time.time())
        root.store.delete(keys[start : start + _BATCH])
