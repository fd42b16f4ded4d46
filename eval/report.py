"""Results as one HTML page that needs nothing but itself: no script, no request, no font."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from eval import plots
from eval.results import Result
from eval.verdict import verdict
from rag.errors import EvaluationError
from rag.page import figure, frame


def write_report(path: Path, results: Sequence[Result]) -> None:
    """Writes the page; folders above it are made. Raises EvaluationError without any result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results), encoding="utf-8")


def page(results: Sequence[Result]) -> str:
    """The whole page as HTML; EvaluationError if there is no result."""
    if not results:
        raise EvaluationError("there is no result to report; name at least one")
    names = ", ".join(dict.fromkeys(result.dataset for result in results))
    body = [f"<h1>Retrieval quality: {escape(names)}</h1>", f"<p>{_legend(results)}</p>"]
    comparable = [r for r in results if all(plots.MEASURE in s for s in r.results.values())]
    if len(comparable) > 1:
        shown = plots.overview(comparable)
        body.append(figure("All collections", shown, "Each collection's mean by mode."))
    body += [_section(result) for result in results]
    return frame(f"Retrieval quality: {names}", body)


def _section(result: Result) -> str:
    ndcg = all(plots.MEASURE in scores for scores in result.results.values())
    figures = [
        figure(
            "Quality by mode",
            plots.quality(result),
            "Mean over the judged queries; the line is its 95 % bootstrap interval.",
        )
    ]
    if result.recall_at_depth:
        figures.append(
            figure(
                "Recall against depth",
                plots.recall(result),
                "Share of the relevant documents among the first so many.",
            )
        )
    if result.latency_ms and ndcg:
        timed = next(iter(result.latency_ms.values()))["n"]
        caption = f"{timed:.0f} queries, asked one after the other; to the left and up is better."
        figures.append(figure("Latency against quality", plots.latency(result), caption))
    if ndcg and {"dense", "sparse"} <= set(result.modes):
        figures.append(
            figure(
                "Query by query",
                plots.per_query(result).replace("<svg ", '<svg class="square" ', 1),
                _per_query_caption(result),
            )
        )
    said = verdict(result)
    summary = "" if said is None else f"<p><strong>{escape(said)}</strong></p>"
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in result.notes)
    system = escape(json.dumps(result.system, ensure_ascii=False, indent=2))
    return (
        f"<section><h2>{escape(result.dataset)}</h2>"
        f"<p>{len(result.query_ids):,} judged queries ({escape(result.split)})</p>{summary}{notes}"
        f'<div class="scroll">{_table(result)}</div><br><div class="grid2">{"".join(figures)}</div>'
        f"<details><summary>What was evaluated</summary><pre>{system}</pre></details></section>"
    )


def _table(result: Result) -> str:
    rows = []
    for name in next(iter(result.results.values())):
        best = max(scores[name] for scores in result.results.values())
        cells = []
        for mode in result.modes:
            value, (low, high) = result.results[mode][name], result.intervals[mode][name]
            kind = ' class="best"' if value == best else ""
            cells.append(f"<td{kind}>{value:.4f}<small>{low:.3f}–{high:.3f}</small></td>")
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    for percentile in ("p50", "p95", "p99") if result.latency_ms else ():
        times = "".join(f"<td>{result.latency_ms[m][percentile]:.1f}</td>" for m in result.modes)
        rows.append(f"<tr><td>latency {percentile}, ms</td>{times}</tr>")
    head = "".join(f'<th scope="col">{_key(mode)}</th>' for mode in result.modes)
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _per_query_caption(result: Result) -> str:
    shown = min(len(result.query_ids), plots.MAX_POINTS)
    sample = "" if shown == len(result.query_ids) else f" (a sample of {shown:,})"
    keys = ""
    if "hybrid" in result.modes:
        keys = " Hybrid: " + "".join(
            _key(kind, words)
            for kind, words in (
                ("above", "above both legs"),
                ("between", "between or equal"),
                ("below", "below both"),
            )
        )
    return f"A point is a query{sample}; above the line the dense leg is better.{keys}"


def _legend(results: Sequence[Result]) -> str:
    modes = {mode: None for result in results for mode in result.modes}
    return "".join(_key(mode) for mode in modes)


def _key(kind: str, words: str | None = None) -> str:
    chart = plots.key_mark(kind)
    return f'<span class="key">{chart}{escape(words or kind)}</span>'
