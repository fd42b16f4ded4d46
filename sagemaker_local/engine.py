"""A container engine through its command: docker, podman, or anything with the same verbs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_local.errors import EngineError

VARIABLE = "CONTAINER_ENGINE"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine at a path in the container."""

    source: Path
    target: str
    read_only: bool = False

    @property
    def flags(self) -> list[str]:
        return ["-v", f"{self.source.resolve()}:{self.target}{':ro' if self.read_only else ''}"]


class Engine:
    """Runs containers; `command` is how the engine is called."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    @classmethod
    def find(cls) -> Engine:
        """The engine that CONTAINER_ENGINE names, else the first of docker and podman that works.

        Raises EngineError where there is none.
        """
        if named := os.environ.get(VARIABLE):
            return cls(shlex.split(named))
        for name in ("docker", "podman"):
            engine = cls((name,))
            if shutil.which(name) and engine.works():
                return engine
        raise EngineError(
            f"no container engine: install docker or podman, or name a command in {VARIABLE}"
        )

    def works(self) -> bool:
        """Whether the engine can list its containers."""
        try:
            self.call("ps", "--quiet")
        except EngineError:
            return False
        return True

    def call(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 600) -> str:
        """What the engine prints on standard output; EngineError with what it says otherwise."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise EngineError(f"{self.command[-1]} {arguments[0]}: {said[-2000:]}")
        return done.stdout.decode(errors="replace")

    def run(
        self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 600
    ) -> subprocess.CompletedProcess[bytes]:
        """One command of the engine, whatever its exit code."""
        try:
            return subprocess.run(  # noqa: S603 - the engine that the user names
                [*self.command, *arguments], input=stdin, capture_output=True, check=False,
                timeout=timeout_s,
            )  # fmt: skip
        except OSError as error:
            raise EngineError(f"{self.command[0]} cannot be run: {error}") from None
        except subprocess.TimeoutExpired:
            raise EngineError(
                f"{self.command[-1]} {arguments[0]} took over {timeout_s} s"
            ) from None

    def start(
        self,
        image: str,
        arguments: Sequence[str] = (),
        *,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> Container:
        """A new container in the background; what it writes stays readable until it is removed."""
        name = f"sagemaker-local-{uuid.uuid4().hex[:12]}"
        words = ["run", "--detach", "--name", name, *flags]
        for mount in mounts:
            words += mount.flags
        for key, value in (environment or {}).items():
            words += ["--env", f"{key}={value}"]
        self.call(*words, image, *arguments)
        return Container(self, name)


class Container:
    """One container, running or ended."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def inspect(self) -> dict[str, Any]:
        """All that the engine knows of it."""
        found: list[dict[str, Any]] = json.loads(self.engine.call("inspect", self.name))
        return found[0]

    @property
    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    @property
    def exit_code(self) -> int:
        return int(self.inspect()["State"]["ExitCode"])

    def port(self, inside: int) -> int:
        """The port of this machine that leads to the port `inside`."""
        line = self.engine.call("port", self.name, f"{inside}/tcp").splitlines()[0]
        return int(line.rpartition(":")[2])

    def logs(self) -> str:
        """What it wrote on standard output and standard error."""
        done = self.engine.run("logs", self.name)
        return (done.stdout + done.stderr).decode(errors="replace")

    def wait(self, timeout_s: float = 3600) -> int:
        """The exit code, once it has ended."""
        self.engine.call("wait", self.name, timeout_s=timeout_s)
        return self.exit_code

    def signal(self, name: str) -> None:
        """Sends a signal, such as TERM, to process 1."""
        self.engine.call("kill", "--signal", name, self.name)

    def stop(self, grace_s: int) -> int:
        """SIGTERM, SIGKILL after `grace_s` seconds; the exit code (137: it was killed)."""
        self.engine.call("stop", "-t", str(grace_s), self.name, timeout_s=grace_s + 60)
        return self.exit_code

    def execute(self, *arguments: str, stdin: bytes | None = None) -> str:
        """What a command in the container prints."""
        return self.engine.call("exec", "--interactive", self.name, *arguments, stdin=stdin)

    def remove(self) -> None:
        """Ends it at once and forgets it."""
        self.engine.run("rm", "--force", "--volumes", self.name)
