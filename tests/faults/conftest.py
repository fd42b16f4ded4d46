"""Real processes that are killed at chosen moments, and a wire to S3 that loses things."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Plan = Callable[[int, str, str], str]
"""(number of the call, method, path) to what happens with it: see `Wire`."""


class Launcher:
    """Starts `rag-indexer` processes; see launcher.py."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("launcher.py"))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._log = folder / "log"
        self.pid = 0

    def start(self, *arguments: str, watched: str = "", die_at: int | None = None) -> None:
        self._log.write_text("")
        environment = {n: v for n, v in os.environ.items() if n.startswith("AWS_")}
        job = {"arguments": arguments, "environment": environment, "log": str(self._log),
               "watched": watched, "die_at": die_at}  # fmt: skip
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        self.pid = int(self._line())

    def wait(self) -> tuple[int, str]:
        """The exit code (negative: the signal that ended it), and what was said."""
        code = os.waitstatus_to_exitcode(int(self._line()))
        return code, self._log.read_text()

    def run(self, *arguments: str, watched: str = "", die_at: int | None = None) -> tuple[int, str]:
        self.start(*arguments, watched=watched, die_at=die_at)
        return self.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


class Wire:
    """A proxy in front of the S3 server. What `plan` says happens to a call: 'pass'; 'reset'
    (connection reset) or '503' or 'hang', each 'before' the call has effect or 'after' it; 'kill'
    does `on_kill` and resets. `between` puts it there for the processes that are started meanwhile.
    """

    def __init__(self, target: str) -> None:
        self.plan: Plan = lambda number, method, path: "pass"
        self.on_kill: Callable[[], None] = lambda: None
        self.calls = 0
        self._lock = threading.Lock()
        host, port = target.removeprefix("http://").split(":")
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                what = wire.next(self.command, self.path)
                if not what.endswith("before"):
                    upstream = http.client.HTTPConnection(host, int(port), timeout=60)
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                    upstream.request(self.command, self.path, body, headers)
                    reply = upstream.getresponse()
                    data = reply.read()
                    upstream.close()
                if what.startswith("kill"):
                    wire.on_kill()
                if what.startswith("hang"):
                    time.sleep(1.5)
                if what.startswith("503"):
                    self.send_error(503, "Slow Down")
                elif what == "pass":
                    self.send_response(reply.status)
                    for name, value in reply.getheaders():
                        if name.lower() not in ("transfer-encoding", "connection", "content-length",
                                                "server", "date"):  # fmt: skip
                            self.send_header(name, value)
                    length = reply.getheader("content-length") if self.command == "HEAD" else None
                    self.send_header("content-length", length or str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                else:
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    self.rfile, self.wfile = io.BytesIO(), io.BytesIO()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @contextmanager
    def between(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.url)
            yield

    def next(self, method: str, path: str) -> str:
        with self._lock:
            number, self.calls = self.calls, self.calls + 1
            return self.plan(number, method, path)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def wire(s3_endpoint: str) -> Iterator[Wire]:
    wire = Wire(s3_endpoint)
    yield wire
    wire.close()


def make_tiny_bundle(folder: Path, name: str) -> str:
    """A sealed folder of three small files, enough for whatever carries bundles about; its
    version follows from `name`. Returns the version.
    """
    from rag.index.manifest import FORMAT, Manifest, version_id
    from rag.index.seal import inventory, write_manifest

    (folder / "dense").mkdir(parents=True)
    for file in ("chunks.arrow", "dense/index.faiss", "report.json"):
        (folder / file).write_bytes(f"{name} {file} ".encode() * 50)
    parts: dict[str, Any] = {
        part: {} for part in ("encoder", "analyzer", "chunker", "dense", "sparse", "fusion")
    }
    digest = hashlib.sha256(name.encode()).hexdigest()
    version = version_id(digest, format=FORMAT, **parts)
    counts = {"documents": 1, "chunks": 1, "terms": 1, "skipped": 0}
    manifest = Manifest(
        version=version, counts=counts, chunks_digest=digest, files=inventory(folder), **parts
    )
    write_manifest(folder, manifest)
    return version


@pytest.fixture
def tiny_bundles(tmp_path: Path) -> dict[str, Path]:
    """Four sealed bundles, 'a' to 'd', in folders that end with their version."""
    folders = {}
    for name in "abcd":
        version = make_tiny_bundle(tmp_path / name, name)
        folders[name] = (tmp_path / name).rename(tmp_path / version)
    return folders


def served(root: str, folder: Path) -> str:
    """The version that a reader of `root` gets, read whole into `folder` and proven."""
    from rag.index.root import Root
    from rag.index.seal import verify_files

    place = Root(root)
    pointer = place.current()
    assert pointer is not None, "CURRENT is gone"
    manifest = place.manifest(pointer.version)
    target = folder / f"read-{time.monotonic_ns()}"
    for name in manifest.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        place.store.download(f"versions/{pointer.version}/{name}", target / name)
    verify_files(target, manifest)
    return pointer.version


@pytest.fixture
def reader(tmp_path: Path) -> Callable[[str], str]:
    """`served`, into this test's folder."""
    return lambda root: served(root, tmp_path)


@pytest.fixture(autouse=True)
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "aws-very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
