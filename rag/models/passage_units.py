"""Cuts passages into the pieces that an extractive answer may quote."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from rag.sentences import split_sentences
from rag.types import Passage


class UnitKind(StrEnum):
    PROSE = "prose"
    HEADING = "heading"
    ITEM = "item"
    ROW = "row"
    CODE = "code"


class Place(NamedTuple):
    """Which unit: its passage's rank, and its number in the passage, from 0."""

    rank: int
    number: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One quotable piece: a sentence, a list item, a table row, some lines of code, a heading.

    `text` is fit to be read alone: unwrapped, without Markdown's marks, a row as `header: value`
    pairs. `above` is what it stands under: title, headings, and the last heading, question or
    lead-in before it.
    `starts_paragraph` and `starts_line` tell whether a blank line or a line break stands
    before it. `number` is a numbered item's, else None.
    """

    place: Place
    kind: UnitKind
    text: str
    above: str
    lang: str
    starts_paragraph: bool
    starts_line: bool = True
    number: int | None = None

    @property
    def leads_in(self) -> bool:
        """Whether it announces what follows ('… as follows:', 'Is it safe?')."""
        return self.text.endswith((":", "：", "?", "？"))

    @property
    def is_numbered(self) -> bool:
        return self.number is not None

    @property
    def is_of_list(self) -> bool:
        """Whether it is an item, or a later sentence of its line."""
        return self.kind is UnitKind.ITEM or not self.starts_line

    @property
    def is_closed(self) -> bool:
        """Whether it ends as a sentence does."""
        return bool(_CLOSED.search(self.text))


_CLOSED = re.compile(r"[.!?。！？…:：][\"'”’)\]」』`]*$")
_ITEM = re.compile(
    r"(?P<bullet>[-*+•‣▪◦·○●]|\[[ xX]\]|[①-⑳])\s*|"
    r"\(?(?P<number>\d{1,3}|[A-Za-z]|[가나다라마바사])[.)]\s+"
)
_RULE = re.compile(r"\|?[\s:|-]*-[\s:|-]*$|[=*_~-]{3,}$")
_CODE = re.compile(
    r"^\s*(?:\$ |>>> |```|~~~|#!|@\w|def |class |import |from \w+ import|(?:async|return|raise) |"
    r"(?:try|else|finally|(?:except|if|for|while|with)\b.*):$|curl |docker |kubectl |pip |"
    r"[{}\]]|\"\w+\":|\w[\w.]*\(|[\w.\[\]\"']+ [-+]?= |--?\w|</?\w+|[\w.-]+ [\w-]+.* --\w)"
    r"|[{;\\]\s*$|=>|\)\s*->"
)
_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_REFERENCE = re.compile(r"\s?\[(?:\^|)\d{1,3}(?:[,-]\s?\d{1,3})*\]")
_WIDE_REFERENCE = re.compile(r"[［【]\s?\d{1,3}[^\]］】]{0,40}[］】]")


def split_units(passage: Passage) -> list[Unit]:
    """The units of a passage in reading order; rules between table header and body are dropped."""
    chunk = passage.chunk
    names = " ".join([chunk.title, *(h for h in chunk.headings if h != chunk.title)])
    spans = split_sentences(chunk.text)
    raws = [chunk.text[start:end] for start, end in spans]
    gaps = [
        "\n\n",
        *(chunk.text[one[1] : two[0]] for one, two in itertools.pairwise(spans)),
        "\n\n",
    ]
    header = _context_header(chunk.context)
    lead = ""
    units: list[Unit] = []
    for at, raw in enumerate(raws):
        if _RULE.match(raw):
            continue
        if raw.startswith("|") and at + 1 < len(raws) and _is_table_rule(raws[at + 1]):
            header = cells(raw)
            continue
        if not raw.startswith("|"):
            header = []
        kind, text, number = _read(raw, gaps[at], gaps[at + 1], header)
        above = f"{names} {lead}"
        place = Place(passage.rank, len(units))
        breaks = gaps[at].count("\n")
        units.append(Unit(place, kind, text, above, chunk.lang, breaks > 1, breaks > 0, number))
        if units[-1].kind is UnitKind.HEADING or units[-1].leads_in:
            lead = text
    return _without_false_headings(units)


def _read(
    raw: str, gap: str, follows: str, header: Sequence[str]
) -> tuple[UnitKind, str, int | None]:
    starts_line = "\n" in gap
    item = _ITEM.match(raw) if starts_line else None
    if raw.startswith("|"):
        return UnitKind.ROW, _row(cells(raw), header), None
    if starts_line and _looks_like_code(raw):
        return UnitKind.CODE, raw.strip("`~ \n"), None
    if item:
        number = item["number"] or ""
        text = readable(raw[item.end() :])
        return UnitKind.ITEM, text, int(number) if number.isdigit() else None
    if _is_heading(raw, starts_line, "\n" in follows):
        return UnitKind.HEADING, readable(raw.lstrip("# ")), None
    return UnitKind.PROSE, readable(raw), None


def _without_false_headings(units: list[Unit]) -> list[Unit]:
    """Short lines in a row, with nothing between them to be the heading of, are a table's lines."""
    is_heading = [unit.kind is UnitKind.HEADING for unit in units]
    beside = [False, *is_heading, False]
    return [
        replace(unit, kind=UnitKind.ROW)
        if is_heading[at] and (beside[at] or beside[at + 2])
        else unit
        for at, unit in enumerate(units)
    ]


def _is_table_rule(raw: str) -> bool:
    return raw.startswith("|") and bool(_RULE.match(raw))


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
