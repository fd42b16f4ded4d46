"""Cuts passages into the pieces that an extractive answer may quote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rag.sentences import split_sentences
from rag.types import Passage


class UnitKind(StrEnum):
    PROSE = "prose"
    HEADING = "heading"
    ITEM = "item"
    ROW = "row"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Unit:
    """One quotable piece: a sentence, a list item, a table row, some lines of code, a heading.

    `rank` is its passage's; `place` counts the units of the passage from 0. `text` is fit to be
    read alone: unwrapped, without Markdown's marks, a row as `header: value` pairs. `above` is
    what it stands under: title, headings, and the last heading, question or lead-in before it.
    `starts_paragraph` tells whether a blank line stands before it.
    """

    rank: int
    place: int
    kind: UnitKind
    text: str
    above: str
    starts_paragraph: bool
    is_numbered: bool = False

    @property
    def leads_in(self) -> bool:
        """Whether it announces what follows ('… as follows:', 'Is it safe?')."""
        return self.text.endswith((":", "：", "?", "？"))

    @property
    def is_closed(self) -> bool:
        """Whether it ends as a sentence does."""
        return bool(_CLOSED.search(self.text))


_CLOSED = re.compile(r"[.!?。！？…:：][\"'”’)\]」』`]*$")
_ITEM = re.compile(
    r"(?P<bullet>[-*+•‣▪◦·○●]|[①-⑳])\s*|\(?(?P<number>\d{1,3}|[A-Za-z]|[가나다라마바사])[.)]\s+"
)
_RULE = re.compile(r"\|?[\s:|-]*-[\s:|-]*$|[=*_~-]{3,}$")
_CODE = re.compile(
    r"^\s*(?:\$ |>>> |```|~~~|#!|def |class |import |from \w+ import|curl |docker |kubectl |pip "
    r"|[{}\]]|\"\w+\":|\w+\(\)|[\w.]+ = )|[{;]\s*$|=>|\)\s*->|^\s*</?\w+"
)
_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_REFERENCE = re.compile(r"\s?\[(?:\^|)\d{1,3}(?:[,-]\s?\d{1,3})*\]")
_WIDE_REFERENCE = re.compile(r"[［【]\s?\d{1,3}[^\]］】]{0,40}[］】]")


def split_units(passage: Passage) -> list[Unit]:
    """The units of a passage in reading order; rules between table header and body are dropped."""
    chunk = passage.chunk
    path = [chunk.title, *(h for h in chunk.headings if h != chunk.title)]
    names = " ".join(path)
    header = _context_header(chunk.context)
    spans = split_sentences(chunk.text)
    units: list[Unit] = []
    lead = ""
    for at, (start, end) in enumerate(spans):
        raw = chunk.text[start:end]
        gap = chunk.text[spans[at - 1][1] : start] if at else "\n\n"
        follows = chunk.text[end : spans[at + 1][0]] if at + 1 < len(spans) else "\n\n"
        if raw.startswith("|") or _RULE.match(raw):
            if _RULE.match(raw):
                continue
            next_raw = chunk.text[slice(*spans[at + 1])] if at + 1 < len(spans) else ""
            if next_raw.startswith("|") and _RULE.match(next_raw):
                header = cells(raw)
                continue
        unit = _unit(passage.rank, len(units), raw, gap, follows, header, f"{names} {lead}")
        units.append(unit)
        if unit.kind is UnitKind.HEADING or unit.leads_in:
            lead = unit.text
    return units


def _unit(
    rank: int, place: int, raw: str, gap: str, follows: str, header: Sequence[str], above: str
) -> Unit:
    starts_line = "\n" in gap
    starts_paragraph = gap.count("\n") > 1
    item = _ITEM.match(raw) if starts_line else None
    is_numbered = False
    if raw.startswith("|"):
        kind, text = UnitKind.ROW, _row(cells(raw), header)
    elif starts_line and _looks_like_code(raw):
        kind, text = UnitKind.CODE, raw.strip("`~ \n")
    elif item:
        is_numbered = (item["number"] or "").isdigit()
        kind, text = UnitKind.ITEM, readable(raw[item.end() :])
    elif _is_heading(raw, starts_line, "\n" in follows):
        kind, text = UnitKind.HEADING, readable(raw.lstrip("# "))
    else:
        kind, text = UnitKind.PROSE, readable(raw)
    return Unit(rank, place, kind, text, above, starts_paragraph, is_numbered)


def readable(text: str) -> str:
    """One line without Markdown's emphasis, link targets, or bracketed reference numbers.

    A `[3]` of the document would read as a citation of this answer's third passage.
    """
    parts = re.split(r"(`[^`\n]+`)", " ".join(text.split()))
    for place in range(0, len(parts), 2):
        part = _STRONG.sub(r"\2", _LINK.sub(r"\1", parts[place]))
        parts[place] = _WIDE_REFERENCE.sub("", _REFERENCE.sub("", part))
    return "".join(parts).strip()


def cells(row: str) -> list[str]:
    """The cells of a Markdown table row."""
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [readable(cell.replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", inner)]


def _row(values: Sequence[str], header: Sequence[str]) -> str:
    if len(header) != len(values):
        return " · ".join(value for value in values if value)
    pairs = [
        f"{name}: {value}" if name else value
        for name, value in zip(header, values, strict=True)
        if value
    ]
    return ", ".join(pairs)


def _context_header(context: str) -> list[str]:
    last = context.rpartition("\n")[2]
    return cells(last) if last.startswith("|") else []


def _looks_like_code(raw: str) -> bool:
    lines = [line for line in raw.split("\n") if line.strip()]
    marked = sum(1 for line in lines if _CODE.search(line))
    return marked * 2 > len(lines) or raw.startswith(("```", "~~~"))


def _is_heading(raw: str, starts_line: bool, ends_line: bool) -> bool:
    if raw.startswith("#") and re.match(r"#{1,6}\s", raw):
        return True
    if not (starts_line and ends_line) or "\n" in raw or len(raw) > 80:
        return False
    return not _CLOSED.search(raw) and not re.search(r"[다요음함됨임;,]$", raw)
