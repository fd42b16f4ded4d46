"""Results as one HTML page that needs nothing but itself: no script, no request, no font."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from eval import plots
from eval.results import Result
from rag.errors import EvaluationError

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4;
  --page: #ffffff; --card: #f6f8fa; --dense: #0064a4; --sparse: #b45f06;
  --hybrid: #007a5a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --line: #30363d;
  --page: #0d1117; --card: #161b22; --dense: #6cb6ff; --sparse: #f0a355;
  --hybrid: #4ad3a6; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, "Noto Sans KR", sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.3rem; margin: 3rem 0 .25rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; } p { margin: .25rem 0 1rem; color: var(--soft); }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 1rem; }
figure { margin: 0; padding: 1rem 1rem .75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .5rem; }
svg { display: block; width: 100%; max-width: 40rem; height: auto; margin: 0 auto; }
svg.square { max-width: 28rem; }
.grid { stroke: var(--line); fill: none; } .equal { stroke: var(--soft); stroke-dasharray: 4 4; }
.tick { fill: var(--soft); font-size: 12px; } .title { fill: var(--ink); font-size: 12.5px; }
.name { font-size: 12px; font-variant-numeric: tabular-nums; fill: var(--ink); }
.line { fill: none; stroke-width: 2; } .whisker { fill: none; stroke-width: 2; opacity: .75; }
.dense { --color: var(--dense); } .sparse { --color: var(--sparse); }
.hybrid { --color: var(--hybrid); } .above { --color: var(--hybrid); }
.below { --color: var(--bad); } .between { --color: var(--soft); }
.line, .whisker { stroke: var(--color); } .mark { fill: var(--color); }
.between.mark, .above.mark, .below.mark { opacity: .6; }
.key { display: inline-flex; gap: .35rem; align-items: center; margin-right: 1rem; }
.key svg { width: 14px; height: 14px; margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td small { color: var(--soft); margin-left: .35rem; } td.best { font-weight: 650; }
td small { font-weight: 400; }
details { margin-top: 1rem; font-size: .88rem; } summary { cursor: pointer; color: var(--soft); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: .8rem;
  border-radius: .4rem; }
.note { border-left: 3px solid var(--sparse); padding-left: .7rem; }
"""


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
        body.append(_figure("All collections", shown, "Each collection's mean by mode."))
    body += [_section(result) for result in results]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Retrieval quality: {escape(names)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _section(result: Result) -> str:
    ndcg = all(plots.MEASURE in scores for scores in result.results.values())
    figures = [
        _figure(
            "Quality by mode",
            plots.quality(result),
            "Mean over the judged queries; the line is its 95 % bootstrap interval.",
        )
    ]
    if result.recall_at_depth:
        figures.append(
            _figure(
                "Recall against depth",
                plots.recall(result),
                "Share of the relevant documents among the first so many.",
            )
        )
    if result.latency_ms and ndcg:
        timed = next(iter(result.latency_ms.values()))["n"]
        caption = f"{timed:.0f} queries, asked one after the other; to the left and up is better."
        figures.append(_figure("Latency against quality", plots.latency(result), caption))
    if ndcg and {"dense", "sparse"} <= set(result.modes):
        figures.append(
            _figure(
                "Query by query",
                plots.per_query(result).replace("<svg ", '<svg class="square" ', 1),
                _per_query_caption(result),
            )
        )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in result.notes)
    system = escape(json.dumps(result.system, ensure_ascii=False, indent=2))
    return (
        f"<section><h2>{escape(result.dataset)}</h2>"
        f"<p>{len(result.query_ids):,} judged queries ({escape(result.split)})</p>{notes}"
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


def _figure(title: str, svg: str, caption: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{caption}</figcaption></figure>"
