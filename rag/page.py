"""An HTML page that needs nothing but itself: no script, no request, no font."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
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


def frame(title: str, body: Sequence[str]) -> str:
    """The whole page: `title` as plain text, `body` as pieces of HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def figure(title: str, svg: str, caption: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{caption}</figcaption></figure>"
