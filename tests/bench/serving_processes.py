"""The processes that are measured: `rag serve`, and an empty FastAPI route on the same server.

`python tests/bench/serving_processes.py PORT` is the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A server as a process; `cold_start_s` is from its start to the first 200 of /ping."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        base = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "SAGEMAKER_"))}
        began = time.perf_counter()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            command, env=base | environment, stdout=subprocess.DEVNULL, stderr=self._log
        )
        while not self._answers():
            if self._process.poll() is not None:
                self._log.seek(0)
                raise SystemExit(f"{command} ended: {self._log.read().decode()}")
            time.sleep(0.002)
        self.cold_start_s = time.perf_counter() - began

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(
                    b"GET /ping HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
                )
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def mib(self, name: str = "Pss") -> float:
        """Resident memory, MiB; 'Pss' counts shared pages by their share, 'Rss' in full."""
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        """Processor time so far, of all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def threads_s(self) -> dict[int, float]:
        """Processor time so far of each thread, in seconds."""
        ticks, found = os.sysconf("SC_CLK_TCK"), {}
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            fields = (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            found[int(task.name)] = (int(fields[11]) + int(fields[12])) / ticks
        return found

    def maps(self, name: str) -> bool:
        """Whether a library of that name is loaded."""
        text = Path(f"/proc/{self._process.pid}/maps").read_text(encoding="utf-8")
        return name in text

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(40)
        self._log.close()


@contextlib.contextmanager
def rag_serve(bundle: Path, **settings: str) -> Iterator[Served]:
    port = free_port()
    environment = {"RAG_BUNDLE": str(bundle), "RAG_HOST": "127.0.0.1", "RAG_PORT": str(port)}
    served = Served([sys.executable, "-m", "rag", "serve"], port, environment | settings)
    try:
        yield served
    finally:
        served.stop()


@contextlib.contextmanager
def empty_route() -> Iterator[Served]:
    port = free_port()
    served = Served([sys.executable, __file__, str(port)], port, {})
    try:
        yield served
    finally:
        served.stop()


def _serve_empty(port: int) -> None:
    from fastapi import FastAPI

    from rag.service.http_server import Server, listen, new_event_loop
    from rag.service.metrics import Metrics
    from rag.service.refusing import Refusals
    from rag.service.schemas import Limits
    from rag.service.state import Service

    app = FastAPI()

    @app.post("/invocations")
    @app.get("/ping")
    async def empty() -> dict[str, Any]:
        return {}

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        refusals = Refusals(Service(Limits()), Metrics())  # it never has reason to
        runner.run(Server(app, refusals).serve(sockets=[listen("127.0.0.1", port)]))


if __name__ == "__main__":
    _serve_empty(int(sys.argv[1]))
