"""Container directives around Markdown text: tips, notes, tabs. Their marks go, their text stays.

Known are '/// tip | Title' (pymdownx blocks), ':::tip Title' (Docusaurus, VitePress, Pandoc),
'!!! tip "Title"' with an indented body (MkDocs), and fences whose info names a kind of note.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})(.*)$")
_SLASHES = re.compile(r"^[ \t]*/{3,}[ \t]*(?:[\w-]+(?:[ \t]*\|[ \t]*(.*))?)?$")
_COLONS = re.compile(r"^[ \t]*:{3,}[ \t]*(?:\{?[\w.-]+\}?[ \t]*(?:\[(.*)\]|(.*)))?$")
_BANGS = re.compile(r"^([ \t]*)(?:!!!|\?\?\?\+?)[ \t]+[\w-]+(?:[ \t]+[\w-]+)*[ \t]*(?:\"(.*)\")?$")
_HEADER = re.compile(r"\bheader=(?:\"([^\"]*)\"|'([^']*)')")
_NOTES_WORDS = (
    "admonition attention caution danger details error hint important info note offline "
    "online quote seealso smart success summary tip todo warn warning"
)
_NOTES = frozenset(_NOTES_WORDS.split())


def is_prose_fence(info: str) -> str | None:
    """The title ('' where it has none) of a fence that holds Markdown; None if it holds code."""
    word = info.strip().split(maxsplit=1)
    if not word or word[0].strip("{}").lower() not in _NOTES:
        return None
    if header := _HEADER.search(info):
        return header[1] or header[2] or ""
    return word[1] if word[0].startswith("{") and len(word) > 1 else ""


def unwrap_directives(text: str) -> str:
    """The text without directive lines; their titles become paragraphs, bodies are unindented."""
    lines: list[str] = []
    fence = ""
    body_indent: int | None = None
    for line in text.split("\n"):
        if body_indent is not None:
            if line.strip() and _indent(line) < body_indent:
                body_indent = None
            elif line.strip():
                line = line.expandtabs(4)[4:] if body_indent >= 4 else line
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            lines.append(line)
            continue
        if mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence = mark[1]
            lines.append(line)
            continue
        title = _directive_title(line)
        if title is None:
            lines.append(line)
            continue
        if _BANGS.match(line):
            body_indent = _indent(line) + 4
        lines.extend(["", title, ""] if title else [""])
    return "\n".join(lines)


def _directive_title(line: str) -> str | None:
    """The title of a line that opens or closes a directive ('' for none), or None."""
    stripped = line.lstrip()
    if stripped.startswith("///"):
        match = _SLASHES.match(line)
        return None if match is None else (match[1] or "").strip().strip("\"'")
    if stripped.startswith(":::"):
        match = _COLONS.match(line)
        return None if match is None else (match[1] or match[2] or "").strip()
    if stripped.startswith(("!!!", "???")):
        match = _BANGS.match(line)
        return None if match is None else (match[2] or "").strip()
    return None


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))
