"""What a root's `CURRENT` says.

It is canonical JSON: `version`, the id in service; `since`, when it became that; `change`, a random
mark of that write; `previous`, the versions before it, latest first; `pruning`, versions that are
being deleted and must not be made current. Only `version` is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rag.errors import BundleCorrupt
from rag.index.manifest import canonical

CURRENT = "CURRENT"
VERSIONS = "versions"


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


def read_pointer(data: bytes, etag: str, where: str) -> Pointer:
    """Of the `CURRENT` of the root `where`; BundleCorrupt if it names no version."""
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


def current_version(pointer: bytes, where: str) -> str:
    """The version id that a root's `CURRENT` names; BundleCorrupt if it names none."""
    return read_pointer(pointer, "", where).version
