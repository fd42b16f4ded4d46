"""Answer quality as a table in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.answers import ALL, MEASURES, AnswerResult, Estimate


def show_answers(console: Console, result: AnswerResult) -> None:
    """One row per measure, one column per language: mean, 95 % interval, number of questions."""
    counts = result.questions
    title = f"{result.dataset}: {counts['answerable']} answerable questions"
    title += f", {counts['unanswerable']} unanswerable; {result.system['generator']}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for group in result.results:
        table.add_column(group, justify="right", no_wrap=True)
    for name in MEASURES:
        if name in result.results[ALL]:
            found = (by_name.get(name) for by_name in result.results.values())
            table.add_row(name, *map(_cell, found))
    console.print(table)
    console.print("[dim]mean, 95 % bootstrap interval, number of questions it is over[/]")
    if result.judgement is not None:
        given = result.judgement
        repeats = max(len(verdicts) for verdicts in given.verdicts)
        console.print(
            f"judge: [bold]{given.mean:.3f}[/] [dim]{given.low:.3f}–{given.high:.3f}[/]"
            f" over answerable questions, {repeats} verdicts each, unanimous on"
            f" {given.agreement:.0%}; {given.malformed} replies malformed, {given.failed} failed"
        )
    for note in result.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.mean:.3f} [dim]{estimate.low:.3f}–{estimate.high:.3f}  {estimate.n:>3}[/]"
