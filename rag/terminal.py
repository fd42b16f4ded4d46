"""A reply of the service, made readable in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

SNIPPET_CHARS = 320


def show_reply(console: Console, reply: Mapping[str, Any]) -> None:
    """Prints the answer with its citations (if the reply has one), the passages with both legs'
    ranks and scores, and where the time went.
    """
    if "answer" in reply:
        _answer(console, reply)
    for passage in reply["passages"]:
        _passage(console, passage)
    if not reply["passages"]:
        console.print("No passage was found.")
    for note in reply.get("degraded", []):
        console.print(f"[yellow]degraded:[/] {escape(note)}")
    times = "  ".join(f"{k} {v:.1f}" for k, v in reply["timings_ms"].items() if v)
    console.print(f"[dim]version {reply['index_version'][:12]}   ms: {times}[/]")


def _answer(console: Console, reply: Mapping[str, Any]) -> None:
    answer = reply["answer"]
    if answer is None:
        console.print("[yellow]No answer was made; the passages that were found:[/]\n")
        return
    text = Text(answer)
    for citation in reply.get("citations", []):
        style = "default" if citation["supported"] is not False else "yellow"
        text.stylize(style, citation["start"], citation["end"])
    text.highlight_regex(r"\[\d+\]", "bold cyan")
    console.print(text)
    unsupported = sum(1 for c in reply.get("citations", []) if c["supported"] is False)
    if unsupported:
        console.print(f"[yellow]{unsupported} sentences are not borne out by what they cite[/]")
    console.print()


def _passage(console: Console, passage: Mapping[str, Any]) -> None:
    where = passage["uri"] + (f", page {passage['page']}" if passage.get("page") else "")
    title = escape(passage["title"] or passage["doc_id"])
    console.print(f"[bold cyan]\\[{passage['rank']}][/] [bold]{title}[/]  [dim]{escape(where)}[/]")
    scores = Table.grid(padding=(0, 2))
    scores.add_row(f"score {passage['score']:.3f}", *_legs(passage["scores"]))
    console.print(Padding(scores, (0, 0, 0, 4), expand=False), style="dim")
    snippet = " ".join(passage["text"].split())
    if len(snippet) > SNIPPET_CHARS:
        snippet = snippet[:SNIPPET_CHARS].rsplit(" ", 1)[0] + " …"
    console.print(Padding(escape(snippet), (0, 0, 1, 4), expand=False))


def _legs(scores: Mapping[str, Any]) -> list[str]:
    legs = []
    for name in ("dense", "sparse", "rerank"):
        found = scores.get(name)
        if found is not None:
            legs.append(f"{name} #{found['rank']} ({found['score']:.3f})")
        elif name != "rerank":
            legs.append(f"{name} –")
    return legs
