"""What an evaluation says while it works, on standard error: bars, or a line per stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from eval.vectors import Advance


@contextmanager
def make_advance(*, quiet: bool = False) -> Iterator[Advance]:
    """A callback (stage, items just done, items in all) that shows each stage's progress: bars on
    a terminal, one line per finished stage elsewhere, nothing with `quiet`.
    """
    if quiet:
        yield lambda stage, count, total: None
    elif sys.stderr.isatty():
        with _bars() as advance:
            yield advance
    else:
        yield _Lines()


class _Lines:
    def __init__(self) -> None:
        self._done: dict[str, int] = {}

    def __call__(self, stage: str, count: int, total: int) -> None:
        self._done[stage] = self._done.get(stage, 0) + count
        if self._done[stage] >= total:
            print(f"{stage}: {total}", file=sys.stderr, flush=True)
            del self._done[stage]


@contextmanager
def _bars() -> Iterator[Advance]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description:<16}"),
        bars.BarColumn(bar_width=32),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    console = Console(file=sys.stderr)
    with bars.Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def advance(stage: str, count: int, total: int) -> None:
            if stage not in tasks or shown.tasks[tasks[stage]].finished:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.advance(tasks[stage], count)

        yield advance
