"""Results and comparisons as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.compare import Change, Shown, Side
from eval.results import Result
from eval.statistics import Comparison, holm
from eval.verdict import verdict

SNIPPET_CHARS = 220


def show_result(console: Console, result: Result) -> None:
    """One column per mode: each measure's mean with its interval, the best in bold, and the
    latency of one query.
    """
    title = f"{result.dataset} ({result.split}), {len(result.query_ids)} queries"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for mode in result.modes:
        table.add_column(mode, justify="right", no_wrap=True)
    for name in next(iter(result.results.values())):
        best = max(scores[name] for scores in result.results.values())
        table.add_row(name, *(_mean(result, mode, name, best) for mode in result.modes))
    for percentile in ("p50", "p95", "p99") if result.latency_ms else ():
        timed = (result.latency_ms[mode][percentile] for mode in result.modes)
        table.add_row(f"latency {percentile}, ms", *(f"{value:.1f}" for value in timed))
    console.print(table)
    console.print("[dim]mean, 95 % bootstrap interval[/]")
    if said := verdict(result):
        console.print(escape(said))
    for note in result.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")


def show_comparisons(
    console: Console, measure: str, compared: Sequence[tuple[Side, Side, Comparison]]
) -> None:
    """One column per pair; p also adjusted for the number of pairs (Holm) where there are several.

    A difference is green or red where the adjusted p is below 0.05.
    """
    title = f"{measure}: B against A, {compared[0][2].n} queries"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for a, b, _ in compared:
        mode = a.mode if a.mode == b.mode else f"{a.mode} -> {b.mode}"
        table.add_column(mode, justify="right", no_wrap=True)
    found = [c for _, _, c in compared]
    adjusted = holm([c.p for c in found])
    rows: dict[str, list[str]] = {
        "A": [f"{c.mean_a:.4f}" for c in found],
        "B": [f"{c.mean_b:.4f}" for c in found],
        "B - A": [_difference(c, p) for c, p in zip(found, adjusted, strict=True)],
        "95 % interval": [f"{c.low:+.4f} to {c.high:+.4f}" for c in found],
        "p (randomisation)": [f"{c.p:.4f}" for c in found],
        "p, Holm": [f"{p:.4f}" for p in adjusted],
        "effect (Cohen's d)": ["–" if c.effect is None else f"{c.effect:+.2f}" for c in found],
        "wins / losses / ties": [f"{c.wins} / {c.losses} / {c.ties}" for c in found],
    }
    if len(compared) == 1:
        del rows["p, Holm"]
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)


def show_changes(console: Console, measure: str, changes: Sequence[Change]) -> None:
    """The queries that changed most, the first passages of both sides beside each other."""
    for change in changes:
        console.print(
            f"\n[bold]{escape(change.text or change.query_id)}[/]  [dim]{escape(change.query_id)}"
            f"[/]  {measure} {change.score_a:.3f} -> {change.score_b:.3f}"
            f" ({change.score_b - change.score_a:+.3f})"
        )
        if not change.passages_a or not change.passages_b:
            continue
        table = Table(expand=True, pad_edge=False)
        table.add_column("A", ratio=1)
        table.add_column("B", ratio=1)
        longest = max(len(change.passages_a), len(change.passages_b))
        for place in range(longest):
            sides = (change.passages_a, change.passages_b)
            table.add_row(*(_cell(side[place]) if place < len(side) else "" for side in sides))
        console.print(table)
    if changes and not all(change.passages_a and change.passages_b for change in changes):
        console.print("[dim]Compare two folders of --runs to see their passages.[/]")


def _mean(result: Result, mode: str, measure: str, best: float) -> str:
    value = result.results[mode][measure]
    low, high = result.intervals[mode][measure]
    shown = f"{value:.4f}" if value != best else f"[bold]{value:.4f}[/]"
    return f"{shown} [dim]{low:.3f}–{high:.3f}[/]"


def _difference(comparison: Comparison, p: float) -> str:
    color = "default" if p >= 0.05 else "green" if comparison.difference > 0 else "red"
    return f"[{color}]{comparison.difference:+.4f}[/]"


def _cell(passage: Shown) -> str:
    text = " ".join(passage.text.split())
    if len(text) > SNIPPET_CHARS:
        text = text[:SNIPPET_CHARS].rsplit(" ", 1)[0] + " …"
    grade = "[dim]not judged[/]" if passage.grade is None else f"grade {passage.grade}"
    if passage.grade:
        grade = f"[green]{grade}[/]"
    legs = "  ".join(f"{name} #{rank}" for name, rank in passage.legs.items())
    head = f"{passage.rank}. [bold]{escape(passage.title or passage.doc_id)}[/]  {grade}"
    return f"{head}  [dim]{legs}[/]\n{escape(text)}"
