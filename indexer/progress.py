"""What a build says while it works: bars on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class Step(Protocol):
    """One stage under way."""

    def advance(self, count: int = 1) -> None: ...


class Progress(Protocol):
    """`stage` brackets one stage of known size; `note` says one thing, with its fields."""

    def stage(self, name: str, total: int) -> Any:
        """A context manager that gives a Step."""
        ...

    def note(self, message: str, **fields: Any) -> None: ...


def make_progress(stream: TextIO | None = None, *, quiet: bool = False) -> Progress:
    """Bars if `stream` (standard error by default) is a terminal, JSON lines if it is not, and
    nothing with `quiet`.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Silent()
    return Bars(stream) if stream.isatty() else JsonLines(stream)


class Silent:
    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Step]:
        yield self

    def advance(self, count: int = 1) -> None:
        pass

    def note(self, message: str, **fields: Any) -> None:
        pass


class JsonLines:
    """A line when a stage begins and ends, and at most one every `every_s` seconds between."""

    def __init__(self, stream: TextIO, *, every_s: float = 10.0) -> None:
        self._stream = stream
        self._every_s = every_s

    def note(self, message: str, **fields: Any) -> None:
        line = {"time": _now(), "level": "info", "message": message, **fields}
        print(json.dumps(line, ensure_ascii=False), file=self._stream, flush=True)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Step]:
        started = time.monotonic()
        self.note("stage started", stage=name, total=total)
        step = _JsonStep(self, name, total, self._every_s)
        yield step
        seconds = round(time.monotonic() - started, 3)
        self.note("stage finished", stage=name, total=step.done, seconds=seconds)


class _JsonStep:
    def __init__(self, parent: JsonLines, name: str, total: int, every_s: float) -> None:
        self._parent, self._name, self._total = parent, name, total
        self._every_s = every_s
        self._next = time.monotonic() + every_s
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            self._parent.note("stage running", stage=self._name, done=self.done, total=self._total)


class Bars:
    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream)

    def note(self, message: str, **fields: Any) -> None:
        detail = "  ".join(f"[dim]{name}[/] {value}" for name, value in fields.items())
        self._console.print(f"{message}  {detail}" if detail else message, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Step]:
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description:<22}"),
            bars.BarColumn(bar_width=32),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=self._console) as shown:
            task = shown.add_task(name, total=total)
            yield _BarStep(shown, task)


class _BarStep:
    def __init__(self, shown: Any, task: Any) -> None:
        self._shown, self._task = shown, task

    def advance(self, count: int = 1) -> None:
        self._shown.advance(self._task, count)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
