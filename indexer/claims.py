"""Who is writing a version: until its manifest is there, a claim lies in the manifest's place.

A version's `manifest.json` goes from nothing to a claim, from claim to claim, and from a claim to
the manifest, each by a conditional write. So the manifest can only be written by the publisher
that holds the claim at that moment, and after that nobody writes into the version any more; a
process that was stopped for hours and goes on finds its claim gone. No clock is compared: a claim
that has not changed for `PATIENCE_S` while somebody watched it is abandoned.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from hashlib import sha256

from indexer.progress import Progress
from rag.errors import ConditionFailed, ObjectNotFound
from rag.index.manifest import CLAIM, NAME, Manifest, canonical, parse
from rag.storage import Store
from rag.writes import settle

RENEW_S = 10.0
PATIENCE_S = 45.0
"""Longer than several renewals with their retries."""
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One publisher's hold on one version. `files` is a digest of what it uploads."""

    owner: str
    files: str
    etag: str
    renewed: float


def take(store: Store, manifest: Manifest, progress: Progress) -> Claim | None:
    """A claim on the version in `store`, or None if the version is whole already.

    A claim by another publisher that uploads the very same files is taken over at once: it died,
    or both write the same bytes. One with other files is waited for, until its version is whole
    or it is abandoned.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    files = files_digest(manifest)
    watched, since = "", time.monotonic()
    etag: str | None
    while True:
        try:
            data, etag = store.read(NAME)
        except ObjectNotFound:
            etag = None
        else:
            found = _claim(data)
            if found is None:
                parse(data, f"{store.uri}/{NAME}")
                return None
            if etag != watched:
                watched, since = etag, time.monotonic()
            if found["files"] != files and time.monotonic() - since < PATIENCE_S:
                progress.note("waiting for another publisher", publisher=found["owner"])
                time.sleep(_LOOK_S)
                continue
            progress.note("taking over an interrupted upload", publisher=found["owner"])
        try:
            return _write(store, owner, files, etag)
        except ConditionFailed:
            continue  # somebody was faster; look again


def renew(store: Store, claim: Claim) -> Claim:
    """The claim, known to be held at this moment, and written anew if that was some time ago.

    Raises ConditionFailed if another publisher has taken it.
    """
    if time.monotonic() - claim.renewed < RENEW_S:
        return claim
    return _write(store, claim.owner, claim.files, claim.etag)


def check(store: Store, claim: Claim) -> None:
    """Raises ConditionFailed if the claim is not held any more."""
    data, _ = store.read(NAME)
    found = _claim(data)
    if found is None or found["owner"] != claim.owner:
        raise ConditionFailed(f"{store.uri}/{NAME} was written by someone else")


def seal(store: Store, claim: Claim, manifest: Manifest) -> None:
    """Puts the manifest in the claim's place; ConditionFailed if the claim is not held."""
    settle(store, NAME, manifest.to_bytes(), expected=claim.etag)


def files_digest(manifest: Manifest) -> str:
    return sha256(canonical({n: e.sha256 for n, e in manifest.files.items()})).hexdigest()[:32]


def _write(store: Store, owner: str, files: str, expected: str | None) -> Claim:
    body = {CLAIM: {"owner": owner, "files": files, "mark": uuid.uuid4().hex}}
    etag = settle(store, NAME, canonical(body), expected=expected)
    return Claim(owner, files, etag, time.monotonic())


def _claim(data: bytes) -> dict[str, str] | None:
    try:
        return dict(json.loads(data)[CLAIM])
    except (ValueError, KeyError, TypeError):
        return None
