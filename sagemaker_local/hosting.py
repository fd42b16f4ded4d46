"""An endpoint: the container serves, is pinged, invoked and stopped as the platform does it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sagemaker_local.engine import Container, Engine, Mount
from sagemaker_local.errors import ModelError, StartFailed
from sagemaker_local.layout import ML

PORT = 8080
PING_S = 2.0
"""How long one /ping may take."""
STARTUP_S = 480.0
"""How long a container may take until /ping is 200."""
INVOCATION_S = 60.0
STREAM_S = 480.0
GRACE_S = 30
"""Seconds between SIGTERM and SIGKILL."""
PLATFORM = {"user-agent": "AHC/2.0", "host": "model.aws.local:8080"}
PREFIX = "X-Amzn-SageMaker-"
FLAGS = ("--read-only", "--tmpfs", "/tmp")  # noqa: S108 - the container's, not this machine's

_CLIENT = """
import http.client, json, sys
ask = json.loads(sys.stdin.readline())
connection = http.client.HTTPConnection("127.0.0.1", ask["port"], timeout=ask["timeout"])
try:
    connection.request(ask["method"], ask["path"], ask["body"].encode(), ask["headers"])
    reply = connection.getresponse()
    print(json.dumps({"status": reply.status, "headers": dict(reply.getheaders()),
                      "body": reply.read().decode()}))
except OSError:
    print(json.dumps({"status": 0, "headers": {}, "body": ""}))
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; status 0: nothing listens."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Endpoint:
    """One serving container, which listens on `port`.

    `isolated`: without any network; it is then spoken to from inside. `published`: the port is
    this machine's own where False.
    """

    def __init__(
        self,
        container: Container,
        *,
        port: int = PORT,
        isolated: bool = False,
        published: bool = True,
    ) -> None:
        self.container = container
        self.isolated = isolated
        self._port = port
        self._client: httpx.Client | None = None
        if not isolated:
            url = f"http://127.0.0.1:{container.port(port) if published else port}"
            self._client = httpx.Client(base_url=url, timeout=INVOCATION_S, trust_env=False)

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        return "" if self._client is None else str(self._client.base_url)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = INVOCATION_S,
    ) -> Reply:
        """One request as the platform's router sends it."""
        sent = PLATFORM | dict(headers or {})
        if self._client is None:
            return self._from_inside(
                method, path, b"".join([body] if isinstance(body, bytes) else body), sent, timeout_s
            )
        try:
            reply = self._client.request(
                method, path, content=body, headers=sent, timeout=timeout_s
            )
        except httpx.TransportError:
            return Reply(0, {}, b"")
        return Reply(reply.status_code, dict(reply.headers), reply.content)

    def ping(self, method: str = "GET") -> int:
        """The status of /ping within its 2 seconds; 0 where none came."""
        return self.send(method, "/ping", timeout_s=PING_S).status

    def wait(self, timeout_s: float = STARTUP_S) -> float:
        """Seconds until /ping was 200; StartFailed with the log where it never is."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if self.ping() == 200:
                return time.monotonic() - began
            if not self.container.running:
                break
            time.sleep(0.05)
        raise StartFailed(f"/ping was never 200; the log ends: {self.container.logs()[-2000:]}")

    def invoke(
        self,
        body: bytes,
        *,
        content_type: str = "application/json",
        accept: str | None = None,
        custom_attributes: str | None = None,
        target_model: str | None = None,
    ) -> Reply:
        """InvokeEndpoint: the reply, or ModelError with the container's own status and body."""
        headers = {"content-type": content_type}
        for name, value in (
            ("accept", accept),
            (f"{PREFIX}Custom-Attributes", custom_attributes),
            (f"{PREFIX}Target-Model", target_model),
        ):
            if value is not None:
                headers[name] = value
        reply = self.send("POST", "/invocations", body, headers)
        if not 200 <= reply.status < 300:
            raise ModelError(reply.status, reply.body)
        return reply

    @contextlib.contextmanager
    def stream(
        self, body: bytes, *, accept: str = "application/x-ndjson"
    ) -> Iterator[httpx.Response]:
        """InvokeEndpointWithResponseStream: the reply's parts as they arrive."""
        if self._client is None:
            raise StartFailed("an isolated container cannot be streamed from")
        headers = PLATFORM | {"content-type": "application/json", "accept": accept}
        with self._client.stream(
            "POST", "/invocations", content=body, headers=headers, timeout=STREAM_S
        ) as response:
            yield response

    def stop(self) -> int:
        """SIGTERM, then SIGKILL 30 seconds later; the exit code."""
        return self.container.stop(GRACE_S)

    def close(self) -> None:
        """Removes the container, whatever it does."""
        if self._client is not None:
            self._client.close()
        self.container.remove()

    def _from_inside(
        self, method: str, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        ask = {
            "port": self._port, "method": method, "path": path, "body": body.decode(),
            "headers": headers, "timeout": timeout_s,
        }  # fmt: skip
        said = self.container.execute(
            "python3", "-c", _CLIENT, stdin=json.dumps(ask).encode() + b"\n"
        )
        reply = json.loads(said)
        lower = {name.lower(): value for name, value in reply["headers"].items()}
        return Reply(reply["status"], lower, reply["body"].encode())


@contextlib.contextmanager
def endpoint(
    engine: Engine,
    image: str,
    model: Path | None,
    *,
    environment: Mapping[str, str] | None = None,
    isolated: bool = False,
    host_network: bool = False,
    port: int = PORT,
    flags: Sequence[str] = (),
    mounts: Sequence[Mount] = (),
    command: Sequence[str] = ("serve",),
) -> Iterator[Endpoint]:
    """A container that serves `model` (the folder that becomes /opt/ml/model, read-only).

    Its root file system is read-only and /tmp is its own. On the host's network it listens on
    `port` of this machine, and reaches what listens there. The container is removed at the end.
    """
    network = ["--publish", f"127.0.0.1::{port}"]
    if isolated or host_network:
        network = ["--network", "none" if isolated else "host"]
    if port != PORT:
        environment = {"SAGEMAKER_BIND_TO_PORT": str(port)} | dict(environment or {})
    found = [] if model is None else [Mount(model, f"{ML}/model", read_only=True)]
    container = engine.start(
        image, command, mounts=[*found, *mounts], environment=environment,
        flags=[*FLAGS, *network, *flags],
    )  # fmt: skip
    try:
        made = Endpoint(container, port=port, isolated=isolated, published=not host_network)
    except BaseException:
        container.remove()
        raise
    try:
        yield made
    finally:
        made.close()
