"""The documents of several hosts on one: a job whose input is sharded still makes one bundle.

The first host in the order of names leads. Every other host hands its share over once, as a tar
stream over HTTP on the job's own network, and is done; the leader builds. Documents are small
beside the work of embedding them, and ranks of one index cannot be had from several.
"""

from __future__ import annotations

import http.client
import os
import shutil
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from indexer.progress import Progress
from rag.errors import BuildError

PORT = 8476
PATIENCE_S = 1800.0
"""How long hosts wait for each other: downloads of shares take their time."""
_END = ".rag-end-of-share"


def hand_over(folder: Path, host: str, progress: Progress) -> None:
    """Serves every file below `folder` to the leader, until it has them all.

    Raises BuildError if the leader does not come.
    """
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-tar")
            self.end_headers()
            with tarfile.open(fileobj=self.wfile, mode="w|") as archive:
                for path in _files(folder):
                    archive.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False)
                archive.addfile(tarfile.TarInfo(_END), BytesIO())

        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_: Any) -> None:
            """Nothing: the job's own lines say enough."""

    deadline = time.monotonic() + PATIENCE_S
    with HTTPServer((host, PORT), Handler) as server:
        server.timeout = 1.0
        progress.note("waiting for the leading host to take this share", host=host)
        while not done.is_set():
            if time.monotonic() > deadline:
                raise BuildError(
                    f"the leading host did not ask {host}:{PORT} for its share in"
                    f" {PATIENCE_S / 60:.0f} minutes; allow traffic between the job's containers"
                )
            server.handle_request()


def gather(own: Path, peers: list[str], target: Path, progress: Progress) -> None:
    """Puts the files of `own` and of every peer below `target`; raises BuildError for a peer that
    does not answer.
    """
    target.mkdir(parents=True)
    for path in _files(own):
        place = target / path.relative_to(own)
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(path, place)
    with progress.stage("gather shares", len(peers)) as step:
        for peer in peers:
            _take(peer, target)
            step.advance()


def _take(peer: str, target: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection = http.client.HTTPConnection(peer, PORT, timeout=60)
            connection.request("GET", "/documents")
            with tarfile.open(fileobj=connection.getresponse(), mode="r|") as archive:
                _extract(archive, target)
            (target / _END).unlink()
            connection.close()
            connection.request("POST", "/done")
            connection.getresponse().read()
            connection.close()
            return
        except (OSError, http.client.HTTPException, tarfile.TarError) as error:
            if time.monotonic() > deadline:
                raise BuildError(
                    f"host {peer}:{PORT} did not hand over its share ({error}); allow traffic"
                    " between the job's containers"
                ) from None
            time.sleep(1.0)


def _extract(archive: tarfile.TarFile, target: Path) -> None:
    """Regular files alone, below `target` alone; Python before 3.11.4 has no filter for that."""
    for member in archive:
        place = target / member.name
        content = archive.extractfile(member) if member.isfile() else None
        if content is None or ".." in place.parts or Path(member.name).is_absolute():
            raise BuildError(f"a share holds {member.name}, which is no file below its folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as out:
            shutil.copyfileobj(content, out)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for parent, _, names in os.walk(folder)
        for path in (Path(parent, name) for name in names)
        if path.is_file()
    )


def _link(path: Path, place: Path) -> None:
    try:
        place.hardlink_to(path)
    except OSError:  # another file system, or one that does not link
        shutil.copyfile(path, place)
