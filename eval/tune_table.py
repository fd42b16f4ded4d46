"""A fitted fusion as a table in a terminal."""

from __future__ import annotations

import json

from rich import box
from rich.console import Console
from rich.table import Table

from eval.tune import Tuned

SHOWN = 5


def show_tuned(console: Console, tuned: Tuned) -> None:
    """The best fusions on the training queries, and the best against what was there on the rest."""
    queries = tuned.queries
    title = f"{tuned.measure} of {len(tuned.training)} fusions, {queries['training']} queries"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("fusion")
    table.add_column("training", justify="right")
    ranked = sorted(tuned.training.items(), key=lambda pair: -pair[1])
    for fusion, mean in ranked[:SHOWN]:
        table.add_row(fusion, f"{mean:.4f}")
    console.print(table)
    found = tuned.comparison
    baseline, best = json.dumps(tuned.baseline), json.dumps(tuned.fusion)
    console.print(f"held out, {queries['held_out']} queries:", markup=False)
    console.print(f"  {baseline}  {found.mean_a:.4f}  (what is there)", markup=False)
    console.print(f"  {best}  {found.mean_b:.4f}  (best of training)", markup=False)
    console.print(
        f"  difference {found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f}),"
        f" p {found.p:.4f}, {found.wins} better, {found.losses} worse, {found.ties} equal",
        markup=False,
    )
    if tuned.loses:
        console.print("It loses on the queries held out: keep the fusion that is there.")
