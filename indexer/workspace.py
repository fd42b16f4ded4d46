"""The folder that a build works in, and goes on from when it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from indexer.setup import Setup
from rag.errors import BuildError

_LOCK = "lock"


class Workspace:
    """`spool` and `vectors` are folders of their own for each way to parse and each encoder, so
    that nothing is ever taken up that was made in another way; `scratch` is for files that a next
    run makes anew. A context manager that one build at a time can be in.

    Where `kept` it is a checkpoint, which stays until `clear_checkpoint`; else it goes when it is
    left.
    """

    def __init__(self, folder: Path, setup: Setup, *, kept: bool) -> None:
        self._folder = folder
        self._kept = kept
        self.spool = folder / f"spool-{setup.parsing[:16]}"
        self.vectors = folder / f"vectors-{setup.encoder[:16]}"
        self.scratch = folder / "scratch"
        self._lock: int | None = None

    def __enter__(self) -> Workspace:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._folder)
        mine = {self.spool.name, self.vectors.name, _LOCK}
        for path in self._folder.iterdir():
            if path.name not in mine and path.is_dir() and _is_ours(path):
                shutil.rmtree(path)
        for path in (self.spool, self.vectors, self.scratch):
            path.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not self._kept:
            shutil.rmtree(self._folder)
        if self._lock is not None:
            os.close(self._lock)


def clear_checkpoint(folder: Path) -> None:
    """Removes what builds left in the checkpoint folder: their work is published."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and _is_ours(path):
            shutil.rmtree(path)
    (folder / _LOCK).unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    return path.name == "scratch" or path.name.startswith(("spool-", "vectors-"))


def _locked(folder: Path) -> int:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise BuildError(f"{folder} is in use by another build; let it finish first") from None
    return lock
