"""A sealed folder into `versions/<id>/…`: create-only, in parallel, the manifest last."""

from __future__ import annotations

import hashlib
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from indexer import claims
from indexer.progress import Progress
from rag import multipart
from rag.errors import ConditionFailed, StorageError
from rag.index.manifest import Manifest
from rag.index.seal import sha256_of
from rag.storage import ObjectInfo, Store, is_remote

WORKERS = 4
"""Files under way at once; each holds at most `multipart.ABOVE_BYTES` in memory."""
_TRIES = 4


def upload(folder: Path, manifest: Manifest, store: Store, progress: Progress) -> bool:
    """Writes the sealed bundle in `folder` to `store`, which is its version's place; False if it
    is there whole already.

    What an interrupted upload left is kept where it is the same, and replaced where it differs.
    Raises ConditionFailed if another publisher took the version over: it writes the same version,
    and nothing of it is lost.
    """
    claim = claims.take(store, manifest, progress)
    if claim is None:
        progress.note("already uploaded", version=manifest.version)
        return False
    try:
        there = {info.key: info for info in store.list()}
        names = sorted(manifest.files, key=lambda name: -manifest.files[name].size)
        with (
            progress.stage("upload", len(names)) as step,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            waiting: set[Future[None]] = {
                pool.submit(_put, store, name, folder / name, there.get(name), claim)
                for name in names
            }
            try:
                while waiting:
                    done, waiting = wait(waiting, claims.RENEW_S, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                        step.advance()
                    claim = claims.renew(store, claim)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        claims.seal(store, claim, manifest)
    except ConditionFailed:
        raise ConditionFailed(
            f"another publisher is writing version {manifest.version} to {store.uri} and has taken"
            " over; it will be the same version: let it finish, or run the command again"
        ) from None
    return True


def _put(
    store: Store, name: str, path: Path, there: ObjectInfo | None, claim: claims.Claim
) -> None:
    for attempt in range(_TRIES):
        try:
            if there is not None:
                _replace(store, name, path, there, claim)
            else:
                store.write(name, path, expected=None)
            return
        except ConditionFailed:
            # Left by an earlier run, or by this write's own first try whose answer was lost.
            there = next((info for info in store.list() if info.key == name), None)
            if attempt == _TRIES - 1:
                raise
        except StorageError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.2 * 2**attempt)


def _replace(store: Store, name: str, path: Path, there: ObjectInfo, claim: claims.Claim) -> None:
    """Makes the object `name` equal to `path`; the claim is checked after the object was seen, so
    that whoever took it over finds either the old object or this write.
    """
    if there.etag.strip('"') == _etag(path):
        return
    with tempfile.TemporaryDirectory(prefix="rag-upload-") as work:
        copy = Path(work, "copy")
        store.download(name, copy)
        found = sha256_of(copy)
    if found == sha256_of(path):
        return
    claims.check(store, claim)
    # A folder's ETag is the content's digest; that of its listing is made of time and size.
    store.write(name, path, expected=there.etag if is_remote(store.uri) else found)


def _etag(path: Path) -> str:
    """What S3 calls this file, where its ETags are made of MD5."""
    size = path.stat().st_size
    if size <= multipart.ABOVE_BYTES:
        return _md5(path.read_bytes()).hexdigest()
    step = multipart.part_bytes(size)
    with path.open("rb") as source:
        parts = [_md5(part).digest() for part in iter(lambda: source.read(step), b"")]
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def _md5(data: bytes) -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
