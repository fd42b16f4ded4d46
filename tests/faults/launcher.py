"""Runs rag-indexer commands as processes of their own, forked so that Python starts only once.

One JSON object a line comes in: `arguments`, `environment`, `log` (a file for what is said), and
`die_at`: the process gets SIGKILL just before its so-manieth change below the folder `watched`.
Out go two lines: the process's id when it starts, its wait status when it ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

CHANGES = {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def die_at(folder: str, number: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in CHANGES:
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if any(isinstance(a, str) and a.startswith(folder) for a in map(_text, arguments)):
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


def _text(argument: Any) -> Any:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else argument


def child(job: dict[str, Any]) -> None:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(job["environment"])
    sys.argv = ["rag-indexer", *job["arguments"]]
    if job["die_at"] is not None:
        die_at(job["watched"], job["die_at"])
    from indexer.__main__ import main

    main()


if __name__ == "__main__":
    import indexer.__main__
    import indexer.publish
    import indexer.retention  # noqa: F401

    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                child(json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)
